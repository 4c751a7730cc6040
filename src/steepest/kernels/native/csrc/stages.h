/* The stages of a step on one block, a few KB that stay in L1 from stage to stage. A plan is a row of stages.

   Included once for each type: W weight, G gradient, C arithmetic and state; LOAD_W, STORE_W, LOAD_G convert.
   x is the block's value in hand: the gradient, then the average, then the step. */

/* Memory streams restart at every block; asking for the next one early keeps them busy. */
static inline void NAME(ahead)(const void *next, int64_t bytes)
{
    for (int64_t i = 0; i < bytes; i += 64)
        __builtin_prefetch((const char *)next + i, 0, 3);
}

static void NAME(gradient)(C *restrict x, const G *restrict g, const W *restrict w, int64_t n, const Recipe *r,
                           const Numbers *k)
{
    C sign = r->maximize ? -1 : 1, l2 = (C)k->l2;
    if (l2 != 0)
        for (int64_t i = 0; i < n; i++)
            x[i] = sign * LOAD_G(g[i]) + l2 * LOAD_W(w[i]);
    else
        for (int64_t i = 0; i < n; i++)
            x[i] = sign * LOAD_G(g[i]);
}

/* (1 - weight) a + weight b, exact at both ends. */
static inline C NAME(between)(C a, C b, C weight, int near_a)
{
    return near_a ? a + weight * (b - a) : b - (1 - weight) * (b - a);
}

/* x <- what the updated buffer m gives for it. */
static void NAME(outcome)(C *restrict x, const C *restrict m, int64_t n, const Recipe *r, const Numbers *k)
{
    C mu = (C)k->momentum, weight = (C)(1 - k->momentum), correction = (C)k->correction;
    int near = weight < (C)0.5;
    if (r->averaging == NO_AVERAGING)
        return;
    if (!r->nesterov)
        for (int64_t i = 0; i < n; i++)
            x[i] = m[i];
    else if (r->averaging == HEAVY_BALL)
        for (int64_t i = 0; i < n; i++)
            x[i] += mu * m[i];
    else if (near)
        for (int64_t i = 0; i < n; i++)
            x[i] = NAME(between)(m[i], x[i], weight, 1);
    else
        for (int64_t i = 0; i < n; i++)
            x[i] = NAME(between)(m[i], x[i], weight, 0);
    if (correction != 1)
        for (int64_t i = 0; i < n; i++)
            x[i] *= correction;
}

/* m <- average with x, x <- outcome. */
static void NAME(average)(C *restrict x, C *restrict m, int64_t n, const Recipe *r, const Numbers *k)
{
    C mu = (C)k->momentum, weight = (C)(1 - k->momentum);
    if (r->averaging == NO_AVERAGING)
        return;
    if (k->first)
        for (int64_t i = 0; i < n; i++)
            m[i] = x[i];
    if (r->averaging == HEAVY_BALL)
        for (int64_t i = 0; i < n; i++)
            m[i] = mu * m[i] + x[i];
    else if (weight < (C)0.5)
        for (int64_t i = 0; i < n; i++)
            m[i] = NAME(between)(m[i], x[i], weight, 1);
    else
        for (int64_t i = 0; i < n; i++)
            m[i] = NAME(between)(m[i], x[i], weight, 0);
    NAME(outcome)(x, m, n, r, k);
}

/* v <- statistic with x^2, d <- D^2. */
static void NAME(square)(C *restrict d, C *restrict v, const C *restrict x, int64_t n, const Recipe *r,
                         const Numbers *k)
{
    C beta2 = (C)r->beta2, rest = (C)(1 - r->beta2), scale = (C)k->square_scale;
    C eps = (C)r->eps, power_scale = (C)k->power_scale, inside = r->placement == INSIDE ? eps : 0;
    if (r->square == SQUARE_SUM)
        for (int64_t i = 0; i < n; i++)
            v[i] += x[i] * x[i];
    else
        for (int64_t i = 0; i < n; i++)
            v[i] = beta2 * v[i] + rest * (x[i] * x[i]);
    if (r->placement != INSIDE)
        scale = 1;
    switch (r->power) {
    case POWER_HALF:
        for (int64_t i = 0; i < n; i++)
            d[i] = ROOT(scale * v[i] + inside);
        break;
    case POWER_THIRD:
        for (int64_t i = 0; i < n; i++)
            d[i] = THIRD_ROOT(scale * v[i] + inside);
        break;
    default:
        for (int64_t i = 0; i < n; i++)
            d[i] = scale * v[i] + inside;
    }
    switch (r->placement) {
    case OUTSIDE:
        for (int64_t i = 0; i < n; i++)
            d[i] = power_scale * d[i] + eps;
        break;
    case UNCORRECTED:
        for (int64_t i = 0; i < n; i++)
            d[i] = power_scale * (d[i] + eps);
        break;
    case FLOOR:
        for (int64_t i = 0; i < n; i++)
            d[i] = power_scale * d[i] < eps ? eps : power_scale * d[i];
    }
    if (r->eps == 0)
        for (int64_t i = 0; i < n; i++)
            d[i] = d[i] > 0 ? d[i] : (C)INFINITY;
}

/* Signs of infinities and NaN are NaN: they must show. */
static inline C NAME(sign)(C x)
{
    return (x > 0 ? (C)1 : (C)0) - (x < 0 ? (C)1 : (C)0) + 0 * x;
}

/* x <- S from x = M and D^2. */
static void NAME(direction)(C *restrict x, const C *restrict d, int64_t n, const Recipe *r)
{
    C factor = (C)r->factor;
    if (r->sign && r->square)
        for (int64_t i = 0; i < n; i++) {
            C root = ROOT(d[i]);
            x[i] = factor * (NAME(sign)(x[i] / root) / root);
        }
    else if (r->sign)
        for (int64_t i = 0; i < n; i++)
            x[i] = factor * NAME(sign)(x[i]);
    else if (r->square)
        for (int64_t i = 0; i < n; i++)
            x[i] /= d[i];
}

/* The weight moves by lr along -x and decays. */
static void NAME(move)(W *restrict w, const C *restrict x, int64_t n, const Recipe *r, const Numbers *k)
{
    C lr = (C)k->lr, kept = (C)k->kept;
    if (kept == 1)
        for (int64_t i = 0; i < n; i++)
            w[i] = STORE_W(LOAD_W(w[i]) - lr * x[i]);
    else if (r->decay == AFTER)
        for (int64_t i = 0; i < n; i++)
            w[i] = STORE_W((LOAD_W(w[i]) - lr * x[i]) * kept);
    else if (r->decay == CAUTIOUS)
        for (int64_t i = 0; i < n; i++) {
            C old = LOAD_W(w[i]);
            w[i] = STORE_W(old * (x[i] * old > 0 ? kept : 1) - lr * x[i]);
        }
    else
        for (int64_t i = 0; i < n; i++)
            w[i] = STORE_W(LOAD_W(w[i]) * kept - lr * x[i]);
}
