/* The public header compiles by itself, in C99 and in C++17, twice in one file. */
#include <moe.h>
#include <moe.h>

int moe_header_is_a_translation_unit(void);
