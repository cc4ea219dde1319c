#include "cli/interrupt.h"

#include <signal.h>
#include <unistd.h>

#include "cli/failure.h"

namespace moe::cli {
namespace {

moe_cancel_token *g_token = nullptr;
volatile sig_atomic_t g_signals = 0;

void on_signal(int) {
  g_signals = g_signals + 1;
  if (g_signals > 1) _exit(kCancelled);
  moe_cancel_token_fire(g_token);
}

}  // namespace

moe_cancel_token *cancel_on_interrupt() {
  if (g_token) return g_token;
  moe_error error = MOE_ERROR_INIT;
  check(moe_cancel_token_create(&g_token, &error), error);
  struct sigaction action {};
  action.sa_handler = on_signal;  // without SA_RESTART: a read from the terminal ends too
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  action.sa_handler = SIG_IGN;
  sigaction(SIGPIPE, &action, nullptr);
  return g_token;
}

}  // namespace moe::cli
