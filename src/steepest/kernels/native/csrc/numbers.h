/* The numbers of one parameter in one step, worked out once in double. */
#ifndef STEEPEST_NUMBERS_H
#define STEEPEST_NUMBERS_H

#include <math.h>

#include "abi.h"

typedef struct {
    double momentum, correction;      /* what the average is multiplied by */
    double square_scale, power_scale; /* 1 / c and 1 / c^power of the square statistic */
    double lr, kept, l2;              /* the step, what decay leaves of the weight, decay in the gradient */
    int first;                        /* the buffer begins as the first value */
} Numbers;

static const double POWERS[] = {1.0, 0.5, 1.0 / 3};

static inline Numbers numbers_at(const Recipe *r, double step)
{
    Numbers k = {r->momentum, 1, 1, 1, r->lr, 1, 0, r->from_first && step == 1};
    if (r->corrected)
        k.correction = 1 / (1 - pow(r->momentum, step + r->nesterov));
    if (r->square_corrected) {
        double c = 1 - pow(r->beta2, step);
        k.square_scale = 1 / c;
        k.power_scale = 1 / pow(c, POWERS[r->power]);
    }
    if (r->decay == L2)
        k.l2 = r->weight_decay;
    else
        k.kept = 1 - r->lr * r->weight_decay;
    return k;
}

#endif
