/* What happens to one entry, as in numbers.h; loops are made of these.

   Included once for each type: W weight, G gradient, C arithmetic and state; LOAD_W, STORE_W, LOAD_G convert.
   Arguments named `is` are constants where these are called, so that each loop is compiled for its own case. */

typedef struct {
    C sign, l2;
    C v_keep, v_add, v_scale, v_shift, d_scale, d_shift, d_floor;
    C m_keep, m_add, from_m, from_x;
    C factor, lr, towards, away, after;
} NAME(Coefficients);

static inline NAME(Coefficients) NAME(coefficients)(const Numbers *k)
{
    return (NAME(Coefficients)){
        (C)k->sign,    (C)k->l2,      (C)k->v_keep, (C)k->v_add, (C)k->v_scale, (C)k->v_shift,
        (C)k->d_scale, (C)k->d_shift, (C)k->d_floor, (C)k->m_keep, (C)k->m_add, (C)k->from_m,
        (C)k->from_x,  (C)k->factor,  (C)k->lr,     (C)k->towards, (C)k->away,  (C)k->after};
}

/* The gradient; `is_coupled` adds the weight's share. */
ALWAYS C NAME(gradient)(G g, const W *w, NAME(Coefficients) k, int is_coupled)
{
    return is_coupled ? k.sign * LOAD_G(g) + k.l2 * LOAD_W(*w) : k.sign * LOAD_G(g);
}

/* D^2, from the square statistic with x in it. Zero counts as infinite: 0 / 0 = 0. */
ALWAYS C NAME(square)(C x, C *v, NAME(Coefficients) k, int is_power)
{
    C statistic = *v = k.v_keep * *v + k.v_add * (x * x);
    C base = k.v_scale * statistic + k.v_shift;
    C root = is_power == POWER_HALF ? ROOT(base) : is_power == POWER_THIRD ? THIRD_ROOT(base) : base;
    C d = k.d_scale * root + k.d_shift;
    d = d < k.d_floor ? k.d_floor : d;
    return d == 0 ? (C)INFINITY : d;
}

ALWAYS C NAME(average)(C x, C *m, NAME(Coefficients) k)
{
    C average = *m = k.m_keep * *m + k.m_add * x;
    return k.from_m * average + k.from_x * x;
}

/* The sign of infinities and NaN is NaN: they must show. */
ALWAYS C NAME(sign)(C x)
{
    C sign = x > 0 ? (C)1 : x < 0 ? (C)-1 : (C)0;
    return x > -(C)INFINITY && x < (C)INFINITY ? sign : (C)NAN;
}

ALWAYS void NAME(move)(W *w, C x, NAME(Coefficients) k)
{
    C old = LOAD_W(*w);
    *w = STORE_W((old * (x * old > 0 ? k.towards : k.away) - k.lr * x) * k.after);
}
