/* ANDI's step: entries divided by the sum of their row's and column's lengths, then an energy floor.

   Three sweeps over a gradient: lengths of rows and columns; the length of what their sum leaves; the move. The
   second sweep runs backwards and so starts on what the first left in cache, and the third on what the second
   left. Included for each type twice: with R the arithmetic itself (squares may leave its range: then this
   finds out, and nothing has been written) and with R wider, which takes whatever came. P holds sums. */

/* Add squares of rows [from, to) to their rows' and columns' sums. */
static void VARIANT(measure)(const Recipe *r, const Tensor *t, const Numbers *k, int64_t at, int64_t from,
                           int64_t to, P *restrict rows, P *restrict columns)
{
    _Alignas(64) C x[BLOCK];
    _Alignas(64) R sum[BLOCK];
    int64_t n = t->columns;
    const W *w = (const W *)t->weight + at;
    const G *g = (const G *)t->grad + at;
    for (int64_t j = 0; j < n; j++)
        columns[j] = 0;
    for (int64_t i = from; i < to; i++)
        rows[i - from] = 0;
    for (int64_t top = from; top < to; top += ROWS_AT_ONCE)
        for (int64_t left = 0; left < n; left += BLOCK) {
            int64_t width = n - left < BLOCK ? n - left : BLOCK;
            int64_t end = to - top < ROWS_AT_ONCE ? to : top + ROWS_AT_ONCE;
            for (int64_t j = 0; j < width; j++)
                sum[j] = 0;
            for (int64_t i = top; i < end; i++) {
                R row = 0;
                NAME(ahead)(g + (i + 2) * n + left, width * sizeof(G));
                NAME(gradient)(x, g + i * n + left, w + i * n + left, width, r, k);
#pragma omp simd reduction(+ : row)
                for (int64_t j = 0; j < width; j++) {
                    R square = (R)x[j] * (R)x[j];
                    sum[j] += square;
                    row += square;
                }
                rows[i - from] += row;
            }
            for (int64_t j = 0; j < width; j++)
                columns[left + j] += sum[j];
        }
}

/* d <- 1 / d. Within the range of a product of four, one division serves four entries. */
static void VARIANT(invert)(R *restrict d, int64_t n, int moderate)
{
    int64_t q = moderate ? n / 4 : 0;
    R *restrict d0 = d, *restrict d1 = d + q, *restrict d2 = d + 2 * q, *restrict d3 = d + 3 * q;
    for (int64_t j = 0; j < q; j++) {
        R first = d0[j] * d1[j], second = d2[j] * d3[j], both = 1 / (first * second);
        R one = both * second, two = both * first, e0 = d0[j], e2 = d2[j];
        d0[j] = one * d1[j];
        d1[j] = one * e0;
        d2[j] = two * d3[j];
        d3[j] = two * e2;
    }
    for (int64_t j = 4 * q; j < n; j++) /* a zero row and column: 0 / 0 = 0 */
        d[j] = d[j] > 0 ? 1 / d[j] : 0;
}

/* The block that starts at row i: whole rows as long as they fit, else a part of one. */
typedef struct {
    int64_t row, left, height, width;
} VARIANT(Block);

static inline VARIANT(Block) VARIANT(block_at)(int64_t index, int64_t from, int64_t to, int64_t n)
{
    int64_t height = n < BLOCK ? BLOCK / n : 1, across = (n + BLOCK - 1) / BLOCK;
    int64_t row = from + index / across * height, left = index % across * BLOCK;
    return (VARIANT(Block)){row, left, to - row < height ? to - row : height, n - left < BLOCK ? n - left : BLOCK};
}

static inline int64_t VARIANT(blocks_in)(int64_t from, int64_t to, int64_t n)
{
    int64_t height = n < BLOCK ? BLOCK / n : 1, across = (n + BLOCK - 1) / BLOCK;
    return (to - from + height - 1) / height * across;
}

/* x <- gradient of a block, d <- 1 / (r_i + c_j). */
static int64_t VARIANT(coordinates)(C *restrict x, R *restrict d, VARIANT(Block) b, const Recipe *r, const Tensor *t,
                                  const Numbers *k, int64_t at, const P *restrict rows,
                                  const R *restrict columns, int moderate)
{
    int64_t entries = b.height * b.width, start = at + b.row * t->columns + b.left;
    NAME(gradient)(x, (const G *)t->grad + start, (const W *)t->weight + start, entries, r, k);
    for (int64_t i = 0; i < b.height; i++) {
        R row = (R)rows[i];
        for (int64_t j = 0; j < b.width; j++)
            d[i * b.width + j] = row + columns[b.left + j];
    }
    VARIANT(invert)(d, entries, moderate);
    return entries;
}

/* Whether it was done: squares stayed in range, or R is as wide as there is. */
static int VARIANT(equilibrate)(const Recipe *r, const Tensor *t, const Numbers *k, int64_t matrix, Team team,
                              Scratch s)
{
    _Alignas(64) C x[BLOCK];
    _Alignas(64) R d[BLOCK];
    int64_t n = t->columns, at = matrix * t->rows * n;
    int64_t from = share(t->rows, team.id, team.count), to = share(t->rows, team.id + 1, team.count);
    int64_t left = share(n, team.id, team.count), right = share(n, team.id + 1, team.count);
    P *rows = row_lengths(s, team.id);
    R *columns = column_lengths(s);
    long double *own = sums(s, team.id);
    P eps = (P)r->eps;

    VARIANT(measure)(r, t, k, at, from, to, rows, partial_columns(s, team.id));
    meet(team);
    P energy = 0, least_row = INFINITY, least_column = INFINITY, most_row = 0, most_column = 0;
    for (int64_t i = 0; i < to - from; i++) {
        energy += rows[i];
        P size = ROOT_P(rows[i]);
        least_row = size < least_row ? size : least_row;
        most_row = size > most_row ? size : most_row;
        rows[i] = (r->axis == COLUMNS ? 0 : size) + eps;
    }
    for (int64_t j = left; j < right; j++) {
        P sum = 0;
        for (int id = 0; id < team.count; id++)
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

    int64_t blocks = VARIANT(blocks_in)(from, to, n);
    P total = 0;
    for (int64_t index = blocks; index-- > 0;) {
        VARIANT(Block) b = VARIANT(block_at)(index, from, to, n);
        VARIANT(Block) before = VARIANT(block_at)(index ? index - 1 : 0, from, to, n);
        NAME(ahead)((const G *)t->grad + at + before.row * n + before.left, BLOCK * sizeof(G));
        int64_t m = VARIANT(coordinates)(x, d, b, r, t, k, at, rows + (b.row - from), columns, moderate);
        R sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t j = 0; j < m; j++) {
            R ratio = x[j] * d[j];
            sum += ratio * ratio;
        }
        total += sum;
    }
    own[5] = total;
    meet(team);
    P size = ROOT_P((P)add_up(s, team, 5)), scale = ROOT_P(energy + 1);
    scale /= size > 0 ? size + eps : (size == 0 ? 1 : size);

    W *weight = t->weight;
    C *average = t->average;
    for (int64_t index = 0; index < blocks; index++) {
        VARIANT(Block) b = VARIANT(block_at)(index, from, to, n);
        int64_t start = at + b.row * n + b.left;
        NAME(ahead)(weight + start + BLOCK, BLOCK * sizeof(W));
        if (average)
            NAME(ahead)(average + start + BLOCK, BLOCK * sizeof(C));
        int64_t m = VARIANT(coordinates)(x, d, b, r, t, k, at, rows + (b.row - from), columns, moderate);
        R factor = (R)scale;
        for (int64_t j = 0; j < m; j++)
            x[j] = (C)(x[j] * d[j] * factor);
        if (average)
            NAME(average)(x, average + start, m, r, k);
        NAME(move)(weight + start, x, m, r, k);
    }
    return 1;
}

#undef VARIANT
#undef R
#undef P
#undef ROOT_P
#undef LEAST
#undef SMALLEST
#undef WIDEST
