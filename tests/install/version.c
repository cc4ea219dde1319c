/* A C program outside the project: it knows the installed header and library only. */
#include <moe.h>
#include <stdio.h>

int main(void) {
  const char *version = moe_version();
  if (!version || !version[0]) return 1;
  puts(version);
  return 0;
}
