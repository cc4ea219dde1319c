// Other wordings for the prompts of any schema, to tell what a model learnt of a domain from what it learnt of its prompt:
//   common   one frame for all domains ("Input: ... Output:"): a router has nothing but the content to go by
//   unseen   another frame, which is only for evaluation: no built-in schema has it
// The roles a prompt uses stand in the frame one after another, each on lines of its own, without the schema's words around them.
#pragma once
#include <string>

#include "data/schema.h"

namespace moe {

// "medmcqa@common" is the schema "medmcqa" in the frame "common"; "@common" the one that is recognised. Cuts the frame off and
// returns it, "" when there is none.
std::string take_frame(std::string &schema);
// The schema with its prompts in the frame, and named after it. Kinds text and messages, which have no prompt, stay as they are.
Schema framed(Schema schema, const std::string &frame);

}  // namespace moe
