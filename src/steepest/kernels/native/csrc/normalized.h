/* Plans that need one number of a whole matrix, its length, before they can move: two sweeps.

   Normalized averages in the first sweep and moves along the average's direction in the second. Equilibrated
   without axis takes the gradient's length first, and averages in the second. */

/* The length's square over [from, to); with `update`, averages on the way. Sums are in S. */
#define LENGTH_OF(S, name)                                                                                     \
    static S NAME(name)(const Recipe *r, const Tensor *t, const Numbers *k, int64_t at, int64_t from,         \
                        int64_t to, int update)                                                                \
    {                                                                                                          \
        _Alignas(64) C x[BLOCK];                                                                               \
        const W *w = (const W *)t->weight + at;                                                                \
        const G *g = (const G *)t->grad + at;                                                                  \
        C *m = t->average ? (C *)t->average + at : 0;                                                          \
        S total = 0;                                                                                           \
        for (int64_t i = from; i < to; i += BLOCK) {                                                           \
            int64_t n = to - i < BLOCK ? to - i : BLOCK;                                                       \
            S sum = 0;                                                                                         \
            NAME(ahead)(g + i + BLOCK, BLOCK * sizeof(G));                                                     \
            NAME(gradient)(x, g + i, w + i, n, r, k);                                                          \
            if (r->kind == NORMALIZED && m) {                                                                  \
                NAME(ahead)(m + i + BLOCK, BLOCK * sizeof(C));                                                 \
                if (update)                                                                                    \
                    NAME(average)(x, m + i, n, r, k);                                                          \
                else                                                                                           \
                    NAME(outcome)(x, m + i, n, r, k);                                                          \
            }                                                                                                  \
            SUM_SQUARES(S, sum, x, n);                                                                         \
            total += sum;                                                                                      \
        }                                                                                                      \
        return total;                                                                                          \
    }

LENGTH_OF(double, length)
LENGTH_OF(long double, wide_length)

/* Move along scale times x; scale is in long double because a float64 length may have no float64 inverse. */
static void NAME(move_scaled)(const Recipe *r, const Tensor *t, const Numbers *k, int64_t at, int64_t from,
                              int64_t to, long double scale)
{
    _Alignas(64) C x[BLOCK];
    W *w = (W *)t->weight + at;
    const G *g = (const G *)t->grad + at;
    C *m = t->average ? (C *)t->average + at : 0;
    int plain = scale == 0 || (scale > 0x1p-60L && scale < 0x1p60L);
    for (int64_t i = from; i < to; i += BLOCK) {
        int64_t n = to - i < BLOCK ? to - i : BLOCK;
        NAME(ahead)(g + i + BLOCK, BLOCK * sizeof(G));
        NAME(ahead)(w + i + BLOCK, BLOCK * sizeof(W));
        if (m)
            NAME(ahead)(m + i + BLOCK, BLOCK * sizeof(C));
        NAME(gradient)(x, g + i, w + i, n, r, k);
        if (r->kind == NORMALIZED && m)
            NAME(outcome)(x, m + i, n, r, k);
        if (plain)
            for (int64_t j = 0; j < n; j++)
                x[j] *= (C)scale;
        else
            for (int64_t j = 0; j < n; j++)
                x[j] = (C)(x[j] * scale);
        if (r->kind == EQUILIBRATED && m)
            NAME(average)(x, m + i, n, r, k);
        NAME(move)(w + i, x, n, r, k);
    }
}

static void NAME(normalized)(const Recipe *r, const Tensor *t, const Numbers *k, int64_t matrix, Team team,
                             Scratch s)
{
    int64_t entries = t->rows * t->columns, at = matrix * entries;
    int64_t from = share(entries, team.id, team.count), to = share(entries, team.id + 1, team.count);
    sums(s, team.id)[0] = NAME(length)(r, t, k, at, from, to, 1);
    meet(team);
    long double total = add_up(s, team, 0);
    if (!(total > 0x1p-900L && total < 0x1p900L)) { /* squares may have left the range: decided alike by all */
        meet(team);
        sums(s, team.id)[0] = NAME(wide_length)(r, t, k, at, from, to, 0);
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
    NAME(move_scaled)(r, t, k, at, from, to, scale);
    meet(team);
}
