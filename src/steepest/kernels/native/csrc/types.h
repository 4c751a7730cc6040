/* Everything for one pair of types. Expects W, G, SUFFIX, LOAD_W, STORE_W, LOAD_G and undefines them. */

#define NAME(name) PASTE(name, SUFFIX)

#include "entry.h"

#include "elementwise.h"

#include "normalized.h"

#define VARIANT(name) PASTE(NAME(name), narrow)
#define R C
#define P double
#define ROOT_P sqrt
#define LEAST NARROW_LEAST
#define SMALLEST NARROW_SMALLEST
#define WIDEST 0
#define INVERSE NARROW_INVERSE
#include "equilibrated.h"

#define VARIANT(name) PASTE(NAME(name), wide)
#define R WIDE
#define P WIDE
#define ROOT_P WIDE_ROOT
#define LEAST WIDE_LEAST
#define SMALLEST 0
#define WIDEST 1
#define INVERSE 1 /
#include "equilibrated.h"

/* One matrix by all threads of a team. */
static void NAME(matrix)(const Recipe *r, const Tensor *t, const Numbers *k, int64_t index, Team team, Scratch s)
{
    if (r->kind == NORMALIZED || r->axis == NO_AXIS)
        NAME(normalized)(r, t, k, index, team, s);
    else if (!PASTE(NAME(equilibrate), narrow)(r, t, k, index, team, s))
        PASTE(NAME(equilibrate), wide)(r, t, k, index, team, s);
}

#undef NAME
#undef SUFFIX
#undef W
#undef G
#undef LOAD_W
#undef STORE_W
#undef LOAD_G
