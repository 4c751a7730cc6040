/* Plans that need one number of a whole matrix, its length, before they can move: two sweeps.

   Normalized averages in the first sweep and moves along the average's outcome in the second. Equilibrated
   without axis takes the gradient's length first, and averages in the second. */

/* The length's square over n entries, in S; averages on the way where `is_averaged`, takes the outcome of an
   average already updated where `is_settled`. */
#define LENGTH(S, name)                                                                                        \
    ALWAYS S NAME(name)(const W *restrict w, const G *restrict g, C *restrict m, int64_t n,                    \
                        NAME(Coefficients) k, int is_coupled, int is_averaged, int is_settled)                 \
    {                                                                                                          \
        S total = 0;                                                                                           \
        for (int64_t start = 0; start < n; start += BLOCK) {                                                   \
            int64_t end = n - start < BLOCK ? n : start + BLOCK;                                               \
            S sum = 0;                                                                                         \
            for (int64_t i = start; i < end; i++) {                                                            \
                C x = NAME(gradient)(g[i], &w[i], k, is_coupled);                                              \
                if (is_averaged)                                                                               \
                    x = NAME(average)(x, &m[i], k);                                                            \
                if (is_settled)                                                                                \
                    x = k.from_m * m[i] + k.from_x * x;                                                        \
                sum += (S)x * (S)x;                                                                            \
            }                                                                                                  \
            total += sum;                                                                                      \
        }                                                                                                      \
        return total;                                                                                          \
    }

LENGTH(double, length)
LENGTH(long double, wide_length)

#undef LENGTH

/* Move along `scale` x, with `is_wide` in long double: a float64 length may have no float64 inverse. */
ALWAYS void NAME(move_scaled)(W *restrict w, const G *restrict g, C *restrict m, int64_t n,
                              NAME(Coefficients) k, long double scale, int is_wide, int is_coupled,
                              int is_averaged, int is_settled)
{
    C factor = (C)scale;
    for (int64_t i = 0; i < n; i++) {
        C x = NAME(gradient)(g[i], &w[i], k, is_coupled);
        if (is_settled)
            x = k.from_m * m[i] + k.from_x * x;
        x = is_wide ? (C)(x * scale) : x * factor;
        if (is_averaged)
            x = NAME(average)(x, &m[i], k);
        NAME(move)(&w[i], x, k);
    }
}

/* Call a function with the constants that a plan has. */
#define CASES(call)                                                                                            \
    if (k->l2 != 0) {                                                                                          \
        if (m && r->kind == NORMALIZED)                                                                        \
            call(1, 1, 0);                                                                                     \
        else if (m)                                                                                            \
            call(1, 0, 1);                                                                                     \
        else                                                                                                   \
            call(1, 0, 0);                                                                                     \
    } else {                                                                                                   \
        if (m && r->kind == NORMALIZED)                                                                        \
            call(0, 1, 0);                                                                                     \
        else if (m)                                                                                            \
            call(0, 0, 1);                                                                                     \
        else                                                                                                   \
            call(0, 0, 0);                                                                                     \
    }

/* In all three, `before` is an average before the length is taken, `later` one after it. */
static double NAME(first_sweep)(const Recipe *r, const W *w, const G *g, C *m, int64_t n, const Numbers *k)
{
    double total = 0;
#define CALL(coupled, before, later) total = NAME(length)(w, g, m, n, NAME(coefficients)(k), coupled, before, 0)
    CASES(CALL)
#undef CALL
    return total;
}

static long double NAME(first_sweep_again)(const Recipe *r, const W *w, const G *g, C *m, int64_t n,
                                           const Numbers *k)
{
    long double total = 0;
#define CALL(coupled, before, later)                                                                           \
    total = NAME(wide_length)(w, g, m, n, NAME(coefficients)(k), coupled, 0, before)
    CASES(CALL)
#undef CALL
    return total;
}

static void NAME(second_sweep)(const Recipe *r, W *w, const G *g, C *m, int64_t n, const Numbers *k,
                               long double scale)
{
    if (scale == 0 || (scale > 0x1p-60L && scale < 0x1p60L)) {
#define CALL(coupled, before, later)                                                                           \
    NAME(move_scaled)(w, g, m, n, NAME(coefficients)(k), scale, 0, coupled, later, before)
        CASES(CALL)
#undef CALL
    } else {
#define CALL(coupled, before, later)                                                                           \
    NAME(move_scaled)(w, g, m, n, NAME(coefficients)(k), scale, 1, coupled, later, before)
        CASES(CALL)
#undef CALL
    }
}

#undef CASES

static void NAME(normalized)(const Recipe *r, const Tensor *t, const Numbers *k, int64_t matrix, Team team,
                             Scratch s)
{
    int64_t entries = t->rows * t->columns;
    int64_t from = share(entries, team.id, team.count), n = share(entries, team.id + 1, team.count) - from;
    int64_t at = matrix * entries + from;
    W *w = (W *)t->weight + at;
    const G *g = (const G *)t->grad + at;
    C *m = t->average ? (C *)t->average + at : 0;
    sums(s, team.id)[0] = NAME(first_sweep)(r, w, g, m, n, k);
    meet(team);
    long double total = add_up(s, team, 0);
    if (sizeof(C) > sizeof(float) && !(total > 0x1p-900L && total < 0x1p900L)) { /* squares may be out of range */
        meet(team);
        sums(s, team.id)[0] = NAME(first_sweep_again)(r, w, g, m, n, k);
        meet(team);
        total = add_up(s, team, 0);
    }
    long double size = sqrtl(total), scale = r->factor;
    if (r->kind == EQUILIBRATED) {
        scale = sqrtl(total + 1);
        size += size > 0 ? r->eps : 0;
    }
    if (size != 0)
        scale /= size;
    NAME(second_sweep)(r, w, g, m, n, k, scale);
    meet(team);
}
