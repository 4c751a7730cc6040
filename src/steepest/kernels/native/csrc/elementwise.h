/* Plans in which no entry needs another. */

static void NAME(elementwise)(const Recipe *r, const Tensor *t, const Numbers *k, int64_t from, int64_t to)
{
    _Alignas(64) C x[BLOCK], d[BLOCK];
    W *w = t->weight;
    const G *g = t->grad;
    C *m = t->average, *v = t->square;
    for (int64_t i = from; i < to; i += BLOCK) {
        int64_t n = to - i < BLOCK ? to - i : BLOCK, next = i + BLOCK;
        NAME(ahead)(g + next, BLOCK * sizeof(G));
        NAME(ahead)(w + next, BLOCK * sizeof(W));
        if (m)
            NAME(ahead)(m + next, BLOCK * sizeof(C));
        if (v)
            NAME(ahead)(v + next, BLOCK * sizeof(C));
        NAME(gradient)(x, g + i, w + i, n, r, k);
        if (v)
            NAME(square)(d, v + i, x, n, r, k);
        if (m)
            NAME(average)(x, m + i, n, r, k);
        NAME(direction)(x, d, n, r);
        NAME(move)(w + i, x, n, r, k);
    }
}
