// A Rust program on libmoe by hand-written FFI, plain rustc: reads an error, trains two steps on a batch of its own, streams tokens
// through a callback, and cancels a generation from another thread.
use std::ffi::{CStr, CString};
use std::os::raw::{c_char, c_void};
use std::ptr::{null, null_mut};
use std::sync::mpsc;

const OK: i32 = 0;
const ERR_IO: i32 = -4;
const ERR_CANCELLED: i32 = -8;

#[repr(C)]
struct Error {
    struct_size: u32,
    code: i32,
    message: [c_char; 1016],
}
#[repr(C)]
struct Batch {
    struct_size: u32,
    reserved: u32,
    n_tokens: i64,
    n_sequences: i64,
    tokens: *const i32,
    positions: *const i32,
    sequence_starts: *const i32,
    labels: *const i32,
    domains: *const i32,
}
#[repr(C)]
#[derive(Default)]
struct Step {
    struct_size: u32,
    flags: u32,
    step: i64,
    tokens: i64,
    supervised_tokens: i64,
    rows: i64,
    loss: f64,
    others: [f64; 8],
}
#[repr(C)]
struct Piece {
    struct_size: u32,
    token: i32,
    text: *const c_char,
    text_length: usize,
    log_probability: f64,
    routing: *const f32,
    n_routing: i32,
    is_end: i32,
}
type Handle = *mut c_void;
type OnPiece = extern "C" fn(*const Piece, *mut c_void) -> i32;

#[link(name = "moe")]
extern "C" {
    fn moe_abi_version() -> i32;
    fn moe_options_create(out: *mut Handle, error: *mut Error) -> i32;
    fn moe_options_set(options: Handle, key: *const c_char, value: *const c_char, error: *mut Error) -> i32;
    fn moe_options_free(options: *mut Handle);
    fn moe_cancel_token_create(out: *mut Handle, error: *mut Error) -> i32;
    fn moe_cancel_token_fire(token: Handle);
    fn moe_cancel_token_free(token: *mut Handle);
    fn moe_model_load(path: *const c_char, options: Handle, cancel: Handle, out: *mut Handle, error: *mut Error) -> i32;
    fn moe_model_free(model: *mut Handle);
    fn moe_lora_create(model: Handle, options: Handle, out: *mut Handle, error: *mut Error) -> i32;
    fn moe_lora_free(lora: *mut Handle);
    fn moe_trainer_create_lora(lora: Handle, data: Handle, options: Handle, cancel: Handle, out: *mut Handle, error: *mut Error) -> i32;
    fn moe_lora_train_step(trainer: Handle, batch: *const Batch, out: *mut Step, error: *mut Error) -> i32;
    fn moe_trainer_free(trainer: *mut Handle);
    fn moe_session_create(model: Handle, options: Handle, cancel: Handle, out: *mut Handle, error: *mut Error) -> i32;
    fn moe_session_set_adapter(session: Handle, lora: Handle, error: *mut Error) -> i32;
    fn moe_generate(session: Handle, prompt: *const c_char, length: usize, options: Handle, on_token: OnPiece, user: *mut c_void,
                    out: *mut Handle, error: *mut Error) -> i32;
    fn moe_session_free(session: *mut Handle);
}

type Failure = (i32, String);

// Runs a call that takes an error last.
fn call(f: impl FnOnce(*mut Error) -> i32) -> Result<(), Failure> {
    let mut error = Error { struct_size: std::mem::size_of::<Error>() as u32, code: 0, message: [0; 1016] };
    match f(&mut error) {
        OK => Ok(()),
        code => Err((code, unsafe { CStr::from_ptr(error.message.as_ptr()) }.to_string_lossy().into_owned())),
    }
}

// A handle that is freed with its owner; immutable for everyone else, so threads may share it.
struct Owned(Handle, unsafe extern "C" fn(*mut Handle));
unsafe impl Send for Owned {}
unsafe impl Sync for Owned {}
impl Drop for Owned {
    fn drop(&mut self) {
        unsafe { self.1(&mut self.0) }
    }
}
fn make(free: unsafe extern "C" fn(*mut Handle), f: impl FnOnce(*mut Handle, *mut Error) -> i32) -> Result<Owned, Failure> {
    let mut handle = null_mut();
    call(|e| f(&mut handle, e)).map(|_| Owned(handle, free))
}

fn options(values: &[(&str, &str)]) -> Owned {
    let made = make(moe_options_free, |out, e| unsafe { moe_options_create(out, e) }).unwrap();
    for (key, value) in values {
        let (k, v) = (CString::new(*key).unwrap(), CString::new(*value).unwrap());
        call(|e| unsafe { moe_options_set(made.0, k.as_ptr(), v.as_ptr(), e) }).unwrap();
    }
    made
}

fn load(path: &str) -> Result<Owned, Failure> {
    let path = CString::new(path).unwrap();
    make(moe_model_free, |out, e| unsafe { moe_model_load(path.as_ptr(), null_mut(), null_mut(), out, e) })
}

fn train(model: &Owned) -> Owned {
    let o = options(&[("rank", "4"), ("max_steps", "2"), ("learning_rate", "0.01"), ("warmup_ratio", "0")]);
    let lora = make(moe_lora_free, |out, e| unsafe { moe_lora_create(model.0, o.0, out, e) }).unwrap();
    let trainer =
        make(moe_trainer_free, |out, e| unsafe { moe_trainer_create_lora(lora.0, null_mut(), o.0, null_mut(), out, e) }).unwrap();
    let (tokens, labels, starts) = ([5, 9, 20, 7, 8, 40], [9, 20, -100, 8, 40, -100], [0, 3, 6]);
    let batch = Batch {
        struct_size: std::mem::size_of::<Batch>() as u32, reserved: 0, n_tokens: 6, n_sequences: 2, tokens: tokens.as_ptr(),
        positions: null(), sequence_starts: starts.as_ptr(), labels: labels.as_ptr(), domains: null(),
    };
    let mut step = Step { struct_size: std::mem::size_of::<Step>() as u32, ..Step::default() };
    call(|e| unsafe { moe_lora_train_step(trainer.0, &batch, &mut step, e) }).unwrap();
    let first = step.loss;
    call(|e| unsafe { moe_lora_train_step(trainer.0, &batch, &mut step, e) }).unwrap();
    assert!(step.step == 2 && step.loss < first, "the loss did not fall: {} {}", first, step.loss);
    lora
}

extern "C" fn on_piece(piece: *const Piece, user: *mut c_void) -> i32 {
    let sink = unsafe { &mut *(user as *mut &mut dyn FnMut(&[u8])) };
    let piece = unsafe { &*piece };
    sink(unsafe { std::slice::from_raw_parts(piece.text as *const u8, piece.text_length) });
    0
}

fn generate(session: &Owned, prompt: &str, o: &Owned, mut sink: &mut dyn FnMut(&[u8])) -> Result<(), Failure> {
    let user = &mut sink as *mut &mut dyn FnMut(&[u8]) as *mut c_void;
    call(|e| unsafe { moe_generate(session.0, prompt.as_ptr() as *const c_char, prompt.len(), o.0, on_piece, user, null_mut(), e) })
}

fn main() {
    assert_eq!(unsafe { moe_abi_version() }, 0);
    let (code, message) = load("/no/such/model.gguf").err().expect("a file that is not there was loaded");
    assert!(code == ERR_IO && message.contains("/no/such/model.gguf"), "{}", message);

    let model = load(&std::env::args().nth(1).expect("the path of a model")).unwrap();
    let lora = train(&model);
    let token = make(moe_cancel_token_free, |out, e| unsafe { moe_cancel_token_create(out, e) }).unwrap();
    let session = make(moe_session_free, |out, e| unsafe { moe_session_create(model.0, null_mut(), token.0, out, e) }).unwrap();
    call(|e| unsafe { moe_session_set_adapter(session.0, lora.0, e) }).unwrap();

    let (mut text, mut pieces) = (Vec::new(), 0);
    let short = options(&[("max_new_tokens", "8"), ("ignore_eos", "true")]);
    generate(&session, "1 + 1 =", &short, &mut |bytes| { text.extend_from_slice(bytes); pieces += 1; }).unwrap();
    assert!(pieces >= 8, "{} pieces, expected 8", pieces);
    String::from_utf8(text).expect("pieces are whole characters");

    let (started, first) = mpsc::channel();
    let long = options(&[("max_new_tokens", "1000000"), ("ignore_eos", "true")]);
    let result = std::thread::scope(|scope| {
        let token = &token;
        scope.spawn(move || { first.recv().unwrap(); unsafe { moe_cancel_token_fire(token.0) } });
        generate(&session, "more", &long, &mut |_| { let _ = started.send(()); })
    });
    assert_eq!(result.expect_err("it was not cancelled").0, ERR_CANCELLED);
    println!("rust: error, two steps, stream, cancel");
}
