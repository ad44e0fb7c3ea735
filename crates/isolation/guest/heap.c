// The heap. Each page that a call writes to costs time when its instance starts and again when it ends, so what calls
// allocate is kept together: the first small blocks come from one region, page after page, and QuickJS's own
// arenas (pages of blocks of one size, fast and without fragments) only come after that. libc has the rest.
#include "guest.h"

#include <stdlib.h>
#include <string.h>

// In libc, but not in its headers here.
extern size_t malloc_usable_size(void *block);

#define WASM_PAGE 65536
// Growing memory costs a system call that stops all threads, so it is done in large steps.
#define GROWTH (1024 * 1024)
#define REGION (128 * 1024)
// Least room in a region for it to be kept when the heap is sealed.
#define ROOM (64 * 1024)
#define REGIONS 2
#define GRAIN 16
#define LARGEST 512

bool scrubbing = true;
// Small blocks come from a region. QuickJS looks at this before it uses an arena (see xtask's guest.rs).
bool heap_compact;

static char *regions[REGIONS];
static char *next, *end; // what is left of the newest
static void *unused[LARGEST / GRAIN + 1]; // freed blocks of regions, by size

// Replaces libc's: hands out memory that is there before it asks for more.
void *sbrk(intptr_t increment) {
    static uintptr_t given;
    uintptr_t size = __builtin_wasm_memory_size(0) * (uintptr_t)WASM_PAGE;
    if (given == 0)
        given = size;
    if (increment <= 0)
        return (void *)given;
    uintptr_t start = given, need = (uintptr_t)increment;
    if (need > size - start) {
        uintptr_t missing = (need - (size - start) + WASM_PAGE - 1) / WASM_PAGE;
        uintptr_t step = missing < GROWTH / WASM_PAGE ? GROWTH / WASM_PAGE : missing;
        if (need > UINT32_MAX - start
            || (__builtin_wasm_memory_grow(0, step) == (size_t)-1
                && __builtin_wasm_memory_grow(0, missing) == (size_t)-1))
            return (void *)-1;
    }
    given = start + need;
    return (void *)start;
}

static bool in_region(const void *block) {
    for (int i = 0; i < REGIONS; i++) {
        if (regions[i] && (uintptr_t)block - (uintptr_t)regions[i] < REGION)
            return true;
    }
    return false;
}

// A block of a region has its size, in grains, in the word before it.
static size_t grains_of(const void *block) { return ((const uint32_t *)block)[-2]; }

static void *from_region(size_t size) {
    size_t grains = (size + GRAIN - 1) / GRAIN;
    void *block = unused[grains];
    if (block) {
        unused[grains] = *(void **)block;
        return block;
    }
    size_t needed = grains * GRAIN + 8;
    if ((size_t)(end - next) < needed) {
        heap_compact = false;
        return NULL;
    }
    *(uint32_t *)next = grains;
    block = next + 8;
    next += needed;
    return block;
}

static void *heap_malloc(void *opaque, size_t size) {
    if (heap_compact && size <= LARGEST && size > 0) {
        void *block = from_region(size);
        if (block)
            return block;
    }
    return malloc(size);
}

static void *heap_calloc(void *opaque, size_t count, size_t size) {
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes))
        return NULL;
    void *block = heap_malloc(opaque, bytes);
    if (block)
        memset(block, 0, bytes);
    return block;
}

static size_t heap_usable(const void *block) {
    return in_region(block) ? grains_of(block) * GRAIN : malloc_usable_size((void *)block);
}

static void heap_free(void *opaque, void *block) {
    if (!block)
        return;
    if (scrubbing)
        memset(block, 0, heap_usable(block));
    if (!in_region(block)) {
        free(block);
        return;
    }
    *(void **)block = unused[grains_of(block)];
    unused[grains_of(block)] = block;
}

static void *heap_realloc(void *opaque, void *block, size_t size) {
    if (!block)
        return heap_malloc(opaque, size);
    bool compact = in_region(block);
    if (!scrubbing && !compact)
        return realloc(block, size);
    size_t had = heap_usable(block);
    if (compact && size <= had && size > 0)
        return block;
    void *moved = heap_malloc(opaque, size);
    if (!moved)
        return NULL;
    memcpy(moved, block, had < size ? had : size);
    heap_free(opaque, block);
    return moved;
}

const JSMallocFunctions heap_functions = { heap_calloc, heap_malloc, heap_free, heap_realloc, heap_usable };

// Fills the small holes between libc's blocks; they are lost for good.
static void plug(void) {
    enum { LARGEST_HOLE = 2048, BUDGET = 1024 * 1024, PROBE = 512 * 1024 };
    char *fresh = malloc(PROBE); // larger than any hole, so at the end of the heap
    if (!fresh)
        return;
    free(fresh);
    size_t filled = 0;
    for (size_t size = LARGEST_HOLE; size >= 8; size -= 8) {
        for (;;) {
            char *hole = malloc(size);
            if (!hole)
                return;
            if (hole >= fresh || filled > BUDGET) {
                free(hole);
                break;
            }
            filled += malloc_usable_size(hole);
        }
    }
}

void heap_seal(void) {
    plug();
    // Freed blocks lie between those that stay: they are not used again.
    memset(unused, 0, sizeof unused);
    if (end - next < ROOM) {
        int free_region = regions[0] ? 1 : 0;
        char *region = malloc(REGION);
        if (!region || regions[free_region]) {
            free(region);
            return;
        }
        regions[free_region] = next = region;
        end = region + REGION;
    }
    heap_compact = true;
}
