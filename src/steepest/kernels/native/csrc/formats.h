/* Numbers as bits: bfloat16, read exactly and rounded to nearest-even, and quotients without division. */
#ifndef STEEPEST_FORMATS_H
#define STEEPEST_FORMATS_H

#include <math.h>
#include <stdint.h>

typedef uint16_t bf16;

typedef union {
    float value;
    uint32_t bits;
} Single;

static inline float from_bf16(bf16 x)
{
    return (Single){.bits = (uint32_t)x << 16}.value;
}

static inline bf16 to_bf16(float x)
{
    Single s = {x};
    uint32_t rounded = (s.bits + 0x7fff + ((s.bits >> 16) & 1)) >> 16;
    return x == x ? (bf16)rounded : 0x7fc0;
}

/* 1 / x for x far from the ends of the range: a guess within 6 % from the bits, its error cubed twice. */
static inline float reciprocal(float x)
{
    Single s = {x};
    s.bits = 0x7ef311c3 - s.bits;
    float y = s.value;
    for (int i = 0; i < 2; i++) {
        float error = 1 - x * y;
        y += y * (error + error * error);
    }
    return y;
}

/* The cube root of x >= 0: a guess from the bits, then Newton. */
static inline float third_root(float x)
{
    float lift = x < 1e-30f ? 0x1p60f : 1, back = x < 1e-30f ? 0x1p-20f : 1;
    Single s = {x * lift};
    s.bits = (uint32_t)((float)(int32_t)s.bits * (1 / 3.0f)) + 0x2a514067;
    float y = s.value;
    for (int i = 0; i < 3; i++)
        y -= (y - x * lift / (y * y)) * (1 / 3.0f);
    return x > 0 && x < INFINITY ? y * back : x;
}

#endif
