/* One parameter's step as coefficients, worked out once in double, so that loops over entries need no branches:

       x  <- sign g + l2 w                                    the gradient
       v  <- v_keep v + v_add x^2                             the square statistic
       D^2 = max(d_scale (v_scale v + v_shift)^power + d_shift, d_floor)
       m  <- m_keep m + m_add x,  x <- from_m m + from_x x    the average
       w  <- (w (x w > 0 ? towards : away) - lr x) after      the move                                        */
#ifndef STEEPEST_NUMBERS_H
#define STEEPEST_NUMBERS_H

#include <math.h>

#include "abi.h"

typedef struct {
    double sign, l2;
    double v_keep, v_add, v_scale, v_shift, d_scale, d_shift, d_floor;
    double m_keep, m_add, from_m, from_x;
    double factor, lr, towards, away, after;
} Numbers;

static const double POWERS[] = {1.0, 0.5, 1.0 / 3};

static inline void set_average(Numbers *k, const Recipe *r, double step)
{
    double mu = r->momentum, share = r->averaging == EMA ? 1 - mu : 1;
    k->m_keep = mu;
    k->m_add = share;
    k->from_m = r->nesterov ? mu : 1;
    k->from_x = r->nesterov ? share : 0;
    if (r->corrected) {
        double summed = 1 - pow(mu, step + r->nesterov);
        k->from_m /= summed;
        k->from_x /= summed;
    }
    if (r->from_first && step == 1) { /* the buffer begins as x, before its first update */
        k->m_keep = 0;
        k->m_add = mu + share;
    }
}

static inline void set_square(Numbers *k, const Recipe *r, double step)
{
    double c = r->square_corrected ? 1 - pow(r->beta2, step) : 1;
    k->v_keep = r->square == SQUARE_SUM ? 1 : r->beta2;
    k->v_add = r->square == SQUARE_SUM ? 1 : 1 - r->beta2;
    k->v_scale = k->d_scale = 1;
    if (r->placement == INSIDE) {
        k->v_scale = 1 / c;
        k->v_shift = r->eps;
    } else
        k->d_scale = pow(c, -POWERS[r->power]);
    if (r->placement == OUTSIDE)
        k->d_shift = r->eps;
    if (r->placement == UNCORRECTED)
        k->d_shift = r->eps * k->d_scale;
    if (r->placement == FLOOR)
        k->d_floor = r->eps;
}

static inline void set_decay(Numbers *k, const Recipe *r)
{
    double kept = 1 - r->lr * r->weight_decay;
    k->lr = r->lr;
    k->towards = r->decay == DECOUPLED || r->decay == CAUTIOUS ? kept : 1;
    k->away = r->decay == DECOUPLED ? kept : 1;
    k->after = r->decay == AFTER ? kept : 1;
    k->l2 = r->decay == L2 ? r->weight_decay : 0;
}

static inline Numbers numbers_at(const Recipe *r, double step)
{
    Numbers k = {.sign = r->maximize ? -1 : 1, .factor = r->factor};
    set_average(&k, r, step);
    set_square(&k, r, step);
    set_decay(&k, r);
    return k;
}

#endif
