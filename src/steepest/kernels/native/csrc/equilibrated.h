/* ANDI's step: entries divided by the sum of their row's and column's lengths, then an energy floor.

   Three sweeps over a gradient: lengths of rows and columns, unless its check has left them; the length of what
   their sum leaves; the move. All run forwards through memory, in strides of LANES entries that ask for what
   comes AHEAD of them: each sweep is bound by memory, and one core's own prefetchers leave a quarter of it
   unused. Included for each type twice: with R the arithmetic itself (squares may leave its range: then this
   finds out, and nothing has been written) and with R wider, which takes whatever came. P holds sums: double
   with R the arithmetic itself, as the check's. */

/* Squares of a stride of a row's entries, added to their columns' sums and to `lanes`. */
ALWAYS void VARIANT(measure_stride)(const W *restrict w, const G *restrict g, R *restrict sums_,
                                    R *restrict lanes, int64_t n, NAME(Coefficients) k, int is_coupled)
{
    for (int64_t j = 0; j < n; j++) {
        R x = (R)NAME(gradient)(g[j], &w[j], k, is_coupled), square = x * x;
        sums_[j] += square;
        lanes[j] += square;
    }
}

/* Add squares of a row's entries to their columns' sums and return their sum. */
ALWAYS R VARIANT(measure_row)(const W *restrict w, const G *restrict g, R *restrict sums_, int64_t n,
                              NAME(Coefficients) k, int is_coupled)
{
    _Alignas(64) R lanes[LANES] = {0};
    int64_t whole = n - n % LANES;
    for (int64_t j = 0; j < whole; j += LANES) {
        AHEAD_OF(g + j);
        VARIANT(measure_stride)(w + j, g + j, sums_ + j, lanes, LANES, k, is_coupled);
    }
    VARIANT(measure_stride)(w + whole, g + whole, sums_ + whole, lanes, n - whole, k, is_coupled);
    R row = 0;
    for (int64_t j = 0; j < LANES; j++)
        row += lanes[j];
    return row;
}

/* Sums of squares of rows [from, to), by row and by column. */
static void VARIANT(measure)(const Tensor *t, const Numbers *numbers, int64_t at, int64_t from, int64_t to,
                             P *restrict rows, P *restrict columns)
{
    _Alignas(64) R sum[SPAN];
    int64_t n = t->columns;
    const W *w = (const W *)t->weight + at;
    const G *g = (const G *)t->grad + at;
    NAME(Coefficients) k = NAME(coefficients)(numbers);
    for (int64_t j = 0; j < n; j++)
        columns[j] = 0;
    for (int64_t i = from; i < to; i++)
        rows[i - from] = 0;
    for (int64_t top = from; top < to; top += ROWS_AT_ONCE)
        for (int64_t left = 0; left < n; left += SPAN) {
            int64_t width = n - left < SPAN ? n - left : SPAN;
            int64_t end = to - top < ROWS_AT_ONCE ? to : top + ROWS_AT_ONCE;
            for (int64_t j = 0; j < width; j++)
                sum[j] = 0;
            for (int64_t i = top; i < end; i++) {
                const W *wi = w + i * n + left;
                const G *gi = g + i * n + left;
                rows[i - from] += numbers->l2 != 0 ? VARIANT(measure_row)(wi, gi, sum, width, k, 1)
                                                   : VARIANT(measure_row)(wi, gi, sum, width, k, 0);
            }
            for (int64_t j = 0; j < width; j++)
                columns[left + j] += sum[j];
        }
}

/* A piece of rows that is contiguous: whole rows as long as they are short, else a part of one. */
typedef struct {
    int64_t row, left, height, width;
} VARIANT(Piece);

static inline int64_t VARIANT(pieces)(int64_t rows, int64_t n)
{
    int64_t height = n < NARROW ? BLOCK / n : 1, across = n < NARROW ? 1 : (n + SPAN - 1) / SPAN;
    return (rows + height - 1) / height * across;
}

static inline VARIANT(Piece) VARIANT(piece)(int64_t index, int64_t rows, int64_t n)
{
    int64_t height = n < NARROW ? BLOCK / n : 1, across = n < NARROW ? 1 : (n + SPAN - 1) / SPAN;
    int64_t row = index / across * height, left = index % across * SPAN;
    return (VARIANT(Piece)){row, left, rows - row < height ? rows - row : height,
                            n - left < SPAN ? n - left : SPAN};
}

/* r_i + c_j of a piece of many rows, for loops that run through it as if it were one. */
static void VARIANT(add_lengths)(R *restrict d, VARIANT(Piece) p, const P *restrict rows,
                                 const R *restrict columns)
{
    for (int64_t i = 0; i < p.height; i++) {
        R row = (R)rows[i];
        for (int64_t j = 0; j < p.width; j++)
            d[i * p.width + j] = row + columns[j];
    }
}

/* A zero row and column: 0 / 0 = 0. */
ALWAYS R VARIANT(inverse)(R d, int is_moderate)
{
    return is_moderate ? (R)INVERSE(d) : d > 0 ? 1 / d : 0;
}

ALWAYS void VARIANT(ratios_stride)(const W *restrict w, const G *restrict g, const R *restrict d,
                                   R *restrict lanes, R row, int64_t n, NAME(Coefficients) k, int is_moderate,
                                   int is_coupled)
{
    for (int64_t j = 0; j < n; j++) {
        R ratio = NAME(gradient)(g[j], &w[j], k, is_coupled) * VARIANT(inverse)(row + d[j], is_moderate);
        lanes[j] += ratio * ratio;
    }
}

ALWAYS R VARIANT(ratios)(const W *restrict w, const G *restrict g, const R *restrict d, R row, int64_t n,
                         NAME(Coefficients) k, int is_moderate, int is_coupled)
{
    _Alignas(64) R lanes[LANES] = {0};
    int64_t whole = n - n % LANES;
    for (int64_t j = 0; j < whole; j += LANES) {
        AHEAD_OF(g + j);
        VARIANT(ratios_stride)(w + j, g + j, d + j, lanes, row, LANES, k, is_moderate, is_coupled);
    }
    VARIANT(ratios_stride)
    (w + whole, g + whole, d + whole, lanes, row, n - whole, k, is_moderate, is_coupled);
    R total = 0;
    for (int64_t j = 0; j < LANES; j++)
        total += lanes[j];
    return total;
}

ALWAYS void VARIANT(move_stride)(W *restrict w, const G *restrict g, C *restrict m, const R *restrict d, R row,
                                 R scale, int64_t n, NAME(Coefficients) k, int is_moderate, int is_coupled,
                                 int is_averaged)
{
    for (int64_t j = 0; j < n; j++) {
        R inverse = VARIANT(inverse)(row + d[j], is_moderate);
        C x = (C)(NAME(gradient)(g[j], &w[j], k, is_coupled) * inverse * scale);
        if (is_averaged)
            x = NAME(average)(x, &m[j], k);
        NAME(move)(&w[j], x, k);
    }
}

ALWAYS void VARIANT(move_row)(W *restrict w, const G *restrict g, C *restrict m, const R *restrict d, R row,
                              R scale, int64_t n, NAME(Coefficients) k, int is_moderate, int is_coupled,
                              int is_averaged)
{
    int64_t whole = n - n % LANES;
    for (int64_t j = 0; j < whole; j += LANES) {
        AHEAD_OF(w + j);
        AHEAD_OF(g + j);
        if (is_averaged)
            AHEAD_OF(m + j);
        VARIANT(move_stride)
        (w + j, g + j, m + j, d + j, row, scale, LANES, k, is_moderate, is_coupled, is_averaged);
    }
    VARIANT(move_stride)
    (w + whole, g + whole, m + whole, d + whole, row, scale, n - whole, k, is_moderate, is_coupled,
     is_averaged);
}

typedef struct {
    W *w;
    const G *g;
    C *m;
    const P *rows;
    const R *columns;
    int64_t height, n; /* of the rows that one thread has */
} VARIANT(View);

static P VARIANT(second_sweep)(const VARIANT(View) v, const Numbers *numbers, int moderate)
{
    _Alignas(64) R several[BLOCK];
    NAME(Coefficients) k = NAME(coefficients)(numbers);
    P total = 0;
    int64_t pieces = VARIANT(pieces)(v.height, v.n);
    for (int64_t index = 0; index < pieces; index++) {
        VARIANT(Piece) p = VARIANT(piece)(index, v.height, v.n);
        int64_t at = p.row * v.n + p.left, n = p.height * p.width;
        const R *d = v.columns + p.left;
        R row = (R)v.rows[p.row];
        if (p.height > 1) {
            VARIANT(add_lengths)(several, p, v.rows + p.row, v.columns);
            d = several;
            row = 0;
        }
        if (numbers->l2 != 0)
            total += moderate ? VARIANT(ratios)(v.w + at, v.g + at, d, row, n, k, 1, 1)
                              : VARIANT(ratios)(v.w + at, v.g + at, d, row, n, k, 0, 1);
        else
            total += moderate ? VARIANT(ratios)(v.w + at, v.g + at, d, row, n, k, 1, 0)
                              : VARIANT(ratios)(v.w + at, v.g + at, d, row, n, k, 0, 0);
    }
    return total;
}

static void VARIANT(third_sweep)(const VARIANT(View) v, const Numbers *numbers, int moderate, P scale)
{
    _Alignas(64) R several[BLOCK];
    NAME(Coefficients) k = NAME(coefficients)(numbers);
    int64_t pieces = VARIANT(pieces)(v.height, v.n);
    for (int64_t index = 0; index < pieces; index++) {
        VARIANT(Piece) p = VARIANT(piece)(index, v.height, v.n);
        int64_t at = p.row * v.n + p.left, n = p.height * p.width;
        const R *d = v.columns + p.left;
        R row = (R)v.rows[p.row];
        if (p.height > 1) {
            VARIANT(add_lengths)(several, p, v.rows + p.row, v.columns);
            d = several;
            row = 0;
        }
#define MOVE(moderate, coupled, averaged)                                                                      \
    VARIANT(move_row)                                                                                          \
    (v.w + at, v.g + at, averaged ? v.m + at : 0, d, row, (R)scale, n, k, moderate, coupled, averaged)
        if (!moderate || numbers->l2 != 0) {
            if (v.m)
                MOVE(0, 1, 1);
            else
                MOVE(0, 1, 0);
        } else if (v.m)
            MOVE(1, 0, 1);
        else
            MOVE(1, 0, 0);
#undef MOVE
    }
}

/* Whether it was done: squares stayed in range, or R is as wide as there is. */
static int VARIANT(equilibrate)(const Recipe *r, const Tensor *t, const Numbers *k, int64_t matrix, Team team,
                                Scratch s)
{
    int64_t n = t->columns, at = matrix * t->rows * n;
    int64_t from = share(t->rows, team.id, team.count), to = share(t->rows, team.id + 1, team.count);
    int64_t left = share(n, team.id, team.count), right = share(n, team.id + 1, team.count);
    P *rows = row_lengths(s, team.id);
    R *columns = column_lengths(s);
    long double *own = sums(s, team.id);
    P eps = (P)r->eps;

    const double *known = WIDEST || !t->sums ? 0 : t->sums + matrix * (t->rows + n);
    if (known)
        for (int64_t i = from; i < to; i++)
            rows[i - from] = (P)known[i];
    else {
        VARIANT(measure)(t, k, at, from, to, rows, partial_columns(s, team.id));
        meet(team);
    }
    P energy = 0, least_row = INFINITY, least_column = INFINITY, most_row = 0, most_column = 0;
    for (int64_t i = 0; i < to - from; i++) {
        energy += rows[i];
        P size = ROOT_P(rows[i]);
        least_row = size < least_row ? size : least_row;
        most_row = size > most_row ? size : most_row;
        rows[i] = (r->axis == COLUMNS ? 0 : size) + eps;
    }
    for (int64_t j = left; j < right; j++) {
        P sum = known ? (P)known[t->rows + j] : 0;
        for (int id = 0; !known && id < team.count; id++)
            sum += ((P *)partial_columns(s, id))[j];
        P size = ROOT_P(sum);
        least_column = size < least_column ? size : least_column;
        most_column = size > most_column ? size : most_column;
        columns[j < r->shift ? j - r->shift + n : j - r->shift] = r->axis == ROWS ? 0 : (R)size;
    }
    own[0] = energy;
    own[1] = least_row;
    own[2] = least_column;
    own[3] = most_row;
    own[4] = most_column;
    meet(team);
    for (int id = 0; id < team.count; id++) {
        const long double *theirs = sums(s, id);
        least_row = theirs[1] < least_row ? (P)theirs[1] : least_row;
        least_column = theirs[2] < least_column ? (P)theirs[2] : least_column;
        most_row = theirs[3] > most_row ? (P)theirs[3] : most_row;
        most_column = theirs[4] > most_column ? (P)theirs[4] : most_column;
    }
    energy = (P)add_up(s, team, 0);
    P least = (r->axis == COLUMNS ? 0 : least_row) + (r->axis == ROWS ? 0 : least_column) + eps;
    P most = most_row + most_column + eps;
    int moderate = least > LEAST && most < 1 / LEAST && most_row > SMALLEST && energy < INFINITY;
    if (!moderate && !WIDEST)
        return 0;

    int64_t start = at + from * n;
    VARIANT(View) view = {(W *)t->weight + start, (const G *)t->grad + start,
                          t->average ? (C *)t->average + start : 0, rows, columns, to - from, n};
    own[5] = VARIANT(second_sweep)(view, k, moderate);
    meet(team);
    P size = ROOT_P((P)add_up(s, team, 5)), scale = ROOT_P(energy + 1);
    scale /= size > 0 ? size + eps : (size == 0 ? 1 : size);
    VARIANT(third_sweep)(view, k, moderate, scale);
    return 1;
}

#undef VARIANT
#undef R
#undef P
#undef ROOT_P
#undef LEAST
#undef SMALLEST
#undef WIDEST
#undef INVERSE
