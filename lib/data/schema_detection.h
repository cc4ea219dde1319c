// Which schema a file has, by the fields of its first rows and, where that leaves several of one group, by all its answers.
#pragma once
#include <string>

#include "data/schema.h"

namespace moe {

// `requested`, with a frame or without (prompt_frame.h): the name of a schema or of a group, the path of a schema file, or "" to recognise it. Code::invalid with the
// fields that were seen and the known schemas when none fits, or when the rows of a group (MedMCQA) do not tell whether the
// answer counts from 0 or from 1.
Schema choose_schema(const std::string &path, const std::string &requested);

}  // namespace moe
