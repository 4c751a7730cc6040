/* Plans in which no entry needs another: one sweep. */

ALWAYS void NAME(stride)(W *restrict w, const G *restrict g, C *restrict m, C *restrict v, int64_t n,
                         NAME(Coefficients) k, int is_averaged, int is_squared, int is_power, int is_sign)
{
    for (int64_t i = 0; i < n; i++) {
        C x = NAME(gradient)(g[i], &w[i], k, 1), d = 1;
        if (is_squared)
            d = NAME(square)(x, &v[i], k, is_power);
        if (is_averaged)
            x = NAME(average)(x, &m[i], k);
        if (is_sign && is_squared) {
            C root = ROOT(d);
            x = k.factor * (NAME(sign)(x / root) / root);
        } else if (is_sign)
            x = k.factor * NAME(sign)(x);
        else if (is_squared)
            x /= d;
        NAME(move)(&w[i], x, k);
    }
}

ALWAYS void NAME(sweep)(W *restrict w, const G *restrict g, C *restrict m, C *restrict v, int64_t n,
                        NAME(Coefficients) k, int is_averaged, int is_squared, int is_power, int is_sign)
{
    int64_t whole = n - n % LANES;
    for (int64_t i = 0; i < whole; i += LANES) {
        AHEAD_OF(w + i);
        AHEAD_OF(g + i);
        if (is_averaged)
            AHEAD_OF(m + i);
        if (is_squared)
            AHEAD_OF(v + i);
        NAME(stride)(w + i, g + i, m + i, v + i, LANES, k, is_averaged, is_squared, is_power, is_sign);
    }
    NAME(stride)
    (w + whole, g + whole, m + whole, v + whole, n - whole, k, is_averaged, is_squared, is_power, is_sign);
}

#define SWEEP(averaged, squared, power_, sign_)                                                                \
    if ((t->average != 0) == averaged && (t->square != 0) == squared && (!squared || r->power == power_) &&    \
        r->sign == sign_) {                                                                                    \
        NAME(sweep)(w, g, m, v, to - from, NAME(coefficients)(k), averaged, squared, power_, sign_);           \
        return;                                                                                                \
    }
#define SWEEPS(averaged, sign_)                                                                                \
    SWEEP(averaged, 0, 0, sign_)                                                                               \
    SWEEP(averaged, 1, POWER_ONE, sign_)                                                                       \
    SWEEP(averaged, 1, POWER_HALF, sign_)                                                                      \
    SWEEP(averaged, 1, POWER_THIRD, sign_)

static void NAME(elementwise)(const Recipe *r, const Tensor *t, const Numbers *k, int64_t from, int64_t to)
{
    W *w = (W *)t->weight + from;
    const G *g = (const G *)t->grad + from;
    C *m = t->average ? (C *)t->average + from : 0, *v = t->square ? (C *)t->square + from : 0;
    SWEEPS(0, 0)
    SWEEPS(0, 1)
    SWEEPS(1, 0)
    SWEEPS(1, 1)
}

#undef SWEEP
#undef SWEEPS
