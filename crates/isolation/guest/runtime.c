// The runtime: made once, when the base image is built, and part of every instance after that.
#include "guest.h"

#include <string.h>

JSRuntime *runtime;
JSContext *ctx;

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
    runtime = JS_NewRuntime2(&heap_functions, NULL);
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
    heap_seal();
}

__attribute__((export_name("wizer-initialize"))) void initialize(void) {
    make();
    wipe_stack();
}
