// The heap and the runtime: made once, when the base image is built, and part of every instance after that.
#include "guest.h"

#include <stdlib.h>
#include <string.h>

// In libc, but not in its headers here.
extern size_t malloc_usable_size(void *block);

#define WASM_PAGE 65536
// Growing memory costs a system call that stops all threads, so it is done in large steps.
#define GROWTH (1024 * 1024)

JSRuntime *runtime;
JSContext *ctx;
bool scrubbing = true;

// Replaces libc's: hands out memory that is there before it asks for more.
void *sbrk(intptr_t increment) {
    static uintptr_t end;
    uintptr_t size = __builtin_wasm_memory_size(0) * (uintptr_t)WASM_PAGE;
    if (end == 0)
        end = size;
    if (increment <= 0)
        return (void *)end;
    uintptr_t start = end, need = (uintptr_t)increment;
    if (need > size - start) {
        uintptr_t missing = (need - (size - start) + WASM_PAGE - 1) / WASM_PAGE;
        uintptr_t step = missing < GROWTH / WASM_PAGE ? GROWTH / WASM_PAGE : missing;
        if (need > UINT32_MAX - start
            || (__builtin_wasm_memory_grow(0, step) == (size_t)-1
                && __builtin_wasm_memory_grow(0, missing) == (size_t)-1))
            return (void *)-1;
    }
    end = start + need;
    return (void *)start;
}

static void *heap_calloc(void *opaque, size_t count, size_t size) { return calloc(count, size); }
static void *heap_malloc(void *opaque, size_t size) { return malloc(size); }
static size_t heap_usable(const void *block) { return malloc_usable_size((void *)block); }

static void heap_free(void *opaque, void *block) {
    if (scrubbing && block)
        memset(block, 0, malloc_usable_size(block));
    free(block);
}

static void *heap_realloc(void *opaque, void *block, size_t size) {
    if (!scrubbing || !block)
        return realloc(block, size);
    void *moved = malloc(size);
    if (!moved)
        return NULL;
    size_t had = malloc_usable_size(block);
    memcpy(moved, block, had < size ? had : size);
    heap_free(opaque, block);
    return moved;
}

static const JSMallocFunctions heap = { heap_calloc, heap_malloc, heap_free, heap_realloc, heap_usable };

static JSModuleDef *no_modules(JSContext *c, const char *name, void *opaque) {
    JS_ThrowTypeError(c, "can't import \"%s\": js functions have no modules to import; "
                         "bundle them into one file or use the nodejs runtime", name);
    return NULL;
}

static char *keep_name(JSContext *c, const char *base, const char *name, void *opaque) { return js_strdup(c, name); }

// What is left on the C stack would only make the image larger.
__attribute__((noinline)) static void wipe_stack(void) {
    char here;
    for (volatile char *byte = 0; byte < &here - 64; byte++)
        *byte = 0;
}

static void make(void) {
    runtime = JS_NewRuntime2(&heap, NULL);
    JS_SetMaxStackSize(runtime, SCRIPT_STACK);
    JS_SetModuleLoaderFunc(runtime, keep_name, no_modules, NULL);
    ctx = JS_NewContext(runtime);
    JSValue global = JS_GetGlobalObject(ctx);
    timers_define(global);
    context_define();
    rejections_define();
    if (prelude_define(global))
        __builtin_trap();
    JS_FreeValue(ctx, global);
    JS_RunGC(runtime);
}

__attribute__((export_name("wizer-initialize"))) void initialize(void) {
    make();
    wipe_stack();
}
