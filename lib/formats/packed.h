// A packed batch (tensor/packed_batch.h) as a safetensors file of I32 tensors:
//   tokens [T], labels [T], sequence_starts [S + 1], optional positions [T] and domains [S]
// positions are implied by the sequences (they restart at 0 in each); when stored they must say the same. Other tensors of the
// file are left alone.
#pragma once
#include <string>

#include "formats/tensor_source.h"
#include "tensor/packed_batch.h"

namespace moe {

// Code::format with the reason when the parts do not fit together. `source` opens the message.
void check_packed_batch(const PackedBatch &batch, const std::string &source);

PackedBatch read_packed_batch(const TensorSource &file);
PackedBatch read_packed_batch(const std::string &path);
std::string encode_packed_batch(const PackedBatch &batch);
void write_packed_batch(const std::string &path, const PackedBatch &batch);  // atomic

}  // namespace moe
