/* Names with a type's suffix. */
#define PASTE_(a, b) a##_##b
#define PASTE(a, b) PASTE_(a, b)
