// Ctrl-C and the like: the first SIGINT or SIGTERM fires a cancel token, so that work ends at its next step, in order; the second
// ends the program at once. SIGPIPE is ignored: a closed pipe is an error of the write, and no reason to lose a training run.
#pragma once
#include <moe.h>

namespace moe::cli {

// Installs the handlers, once, and returns the token. It lives as long as the program.
moe_cancel_token *cancel_on_interrupt();

}  // namespace moe::cli
