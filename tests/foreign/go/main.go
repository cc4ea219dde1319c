// A Go program on libmoe by cgo: reads an error, trains two steps on a batch of its own, streams tokens through a callback, and
// cancels a generation from another goroutine the way a context would.
package main

/*
#include <moe.h>
#include <stdlib.h>
int32_t goPiece(moe_piece *piece, void *user);
*/
import "C"

import (
	"fmt"
	"os"
	"runtime/cgo"
	"strings"
	"unsafe"
)

// A failed call as a Go error.
type moeError struct {
	code    int32
	message string
}

func (e *moeError) Error() string { return C.GoString(C.moe_status_name(C.int32_t(e.code))) + ": " + e.message }

func newError() C.moe_error {
	var e C.moe_error
	e.struct_size = C.uint32_t(unsafe.Sizeof(e))
	return e
}

func check(status C.int32_t, e *C.moe_error) error {
	if status == C.MOE_OK {
		return nil
	}
	return &moeError{int32(status), C.GoString(&e.message[0])}
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "foreign/go:", err)
		os.Exit(1)
	}
}

func require(condition bool, what string) {
	if !condition {
		must(fmt.Errorf("%s", what))
	}
}

func options(values map[string]string) *C.moe_options {
	var o *C.moe_options
	e := newError()
	must(check(C.moe_options_create(&o, &e), &e))
	for key, value := range values {
		k, v := C.CString(key), C.CString(value)
		must(check(C.moe_options_set(o, k, v, &e), &e))
		C.free(unsafe.Pointer(k))
		C.free(unsafe.Pointer(v))
	}
	return o
}

func load(path string) (*C.moe_model, error) {
	p := C.CString(path)
	defer C.free(unsafe.Pointer(p))
	var model *C.moe_model
	e := newError()
	return model, check(C.moe_model_load(p, nil, nil, &model, &e), &e)
}

// What is behind `user` in the callback.
type stream struct {
	text    strings.Builder
	pieces  int
	onPiece func()
}

//export goPiece
func goPiece(piece *C.moe_piece, user unsafe.Pointer) C.int32_t {
	s := (*(*cgo.Handle)(user)).Value().(*stream)
	s.text.WriteString(C.GoStringN(piece.text, C.int(piece.text_length)))
	s.pieces++
	if s.onPiece != nil {
		s.onPiece()
	}
	return 0
}

func generate(session *C.moe_session, prompt string, o *C.moe_options, s *stream) error {
	handle := cgo.NewHandle(s)
	defer handle.Delete()
	user := C.malloc(C.size_t(unsafe.Sizeof(handle)))
	defer C.free(user)
	*(*cgo.Handle)(user) = handle
	text := C.CString(prompt)
	defer C.free(unsafe.Pointer(text))
	e := newError()
	status := C.moe_generate(session, text, C.size_t(len(prompt)), o, (C.moe_token_callback)(C.goPiece), user, nil, &e)
	return check(status, &e)
}

// The arrays of a batch live in C memory: cgo does not let a struct of Go pointers cross.
func array(values []int32) *C.int32_t {
	memory := C.malloc(C.size_t(len(values) * 4))
	copy(unsafe.Slice((*int32)(memory), len(values)), values)
	return (*C.int32_t)(memory)
}

func train(model *C.moe_model) *C.moe_lora {
	o := options(map[string]string{"rank": "4", "max_steps": "2", "learning_rate": "0.01", "warmup_ratio": "0"})
	defer C.moe_options_free(&o)
	e := newError()
	var lora *C.moe_lora
	var trainer *C.moe_trainer
	must(check(C.moe_lora_create(model, o, &lora, &e), &e))
	must(check(C.moe_trainer_create_lora(lora, nil, o, nil, &trainer, &e), &e))
	defer C.moe_trainer_free(&trainer)
	var batch C.moe_batch
	batch.struct_size = C.uint32_t(unsafe.Sizeof(batch))
	batch.n_tokens, batch.n_sequences = 6, 2
	batch.tokens = array([]int32{5, 9, 20, 7, 8, 40})
	batch.labels = array([]int32{9, 20, -100, 8, 40, -100})
	batch.sequence_starts = array([]int32{0, 3, 6})
	defer C.free(unsafe.Pointer(batch.tokens))
	defer C.free(unsafe.Pointer(batch.labels))
	defer C.free(unsafe.Pointer(batch.sequence_starts))
	var losses []float64
	for i := 0; i < 2; i++ {
		var step C.moe_step
		step.struct_size = C.uint32_t(unsafe.Sizeof(step))
		must(check(C.moe_lora_train_step(trainer, &batch, &step, &e), &e))
		losses = append(losses, float64(step.loss))
	}
	require(losses[1] < losses[0], fmt.Sprint("the loss did not fall: ", losses))
	return lora
}

func main() {
	require(C.moe_abi_version() == C.MOE_ABI_VERSION, "another interface than the one built for")
	_, err := load("/no/such/model.gguf")
	failure, ok := err.(*moeError)
	require(ok && failure.code == C.MOE_ERR_IO && strings.Contains(failure.message, "/no/such/model.gguf"), fmt.Sprint("the error was: ", err))

	model, err := load(os.Args[1])
	must(err)
	defer C.moe_model_free(&model)
	lora := train(model)
	defer C.moe_lora_free(&lora)

	var token *C.moe_cancel_token
	var session *C.moe_session
	e := newError()
	must(check(C.moe_cancel_token_create(&token, &e), &e))
	defer C.moe_cancel_token_free(&token)
	must(check(C.moe_session_create(model, nil, token, &session, &e), &e))
	defer C.moe_session_free(&session)
	must(check(C.moe_session_set_adapter(session, lora, &e), &e))

	short := options(map[string]string{"max_new_tokens": "8", "ignore_eos": "true"})
	defer C.moe_options_free(&short)
	var s stream
	must(generate(session, "1 + 1 =", short, &s))
	require(s.pieces >= 8, fmt.Sprint(s.pieces, " pieces, expected 8"))

	done := make(chan struct{})
	first := make(chan struct{}, 1)
	go func() { // what a context's Done() would do
		<-first
		C.moe_cancel_token_fire(token)
		close(done)
	}()
	long := options(map[string]string{"max_new_tokens": "1000000", "ignore_eos": "true"})
	defer C.moe_options_free(&long)
	err = generate(session, "more", long, &stream{onPiece: func() {
		select {
		case first <- struct{}{}:
		default:
		}
	}})
	<-done
	failure, ok = err.(*moeError)
	require(ok && failure.code == C.MOE_ERR_CANCELLED, fmt.Sprint("cancelling gave: ", err))
	fmt.Println("go: error, two steps, stream, cancel")
}
