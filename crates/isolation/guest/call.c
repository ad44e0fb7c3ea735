// The exports that the host calls: `load` once, when a version is deployed; `call` for each call; `resume` after
// either of them said WAITING.
#include "guest.h"

#include <stdlib.h>
#include <string.h>

// Events up to this size need no allocation.
static char inbox[4096];
static JSValue handler = JS_UNDEFINED;
static bool spreads;  // an array is given as arguments
static bool called;   // served a call before
static JSValue waited = JS_UNDEFINED; // promise of the call or of the module
static size_t limit;
static JSModuleDef *module; // being loaded
static const char *wanted;  // name of the export that is to be the handler
int form;
static bool failed;         // the script threw `failure` when it was evaluated; each call throws it
static JSValue failure = JS_UNDEFINED;
static bool class;          // the script's `fn` is a class

EXPORT(inbox) void *inbox_address(void) { return inbox; }
EXPORT(inbox_size) size_t inbox_size(void) { return sizeof inbox; }
EXPORT(allocate) void *allocate(size_t size) { return malloc(size); }

static JSValue take_waited(void) {
    JSValue promise = waited;
    waited = JS_UNDEFINED;
    return promise;
}

// A class can't be called. Its `prototype` is read-only, that of a function is not.
static bool is_class(JSValueConst function) {
    if (!JS_IsConstructor(ctx, function))
        return false;
    JSPropertyDescriptor found;
    JSAtom prototype = JS_NewAtom(ctx, "prototype");
    int there = JS_GetOwnProperty(ctx, &found, function, prototype);
    JS_FreeAtom(ctx, prototype);
    if (there <= 0)
        return false;
    JS_FreeValue(ctx, found.value);
    JS_FreeValue(ctx, found.getter);
    JS_FreeValue(ctx, found.setter);
    return !(found.flags & JS_PROP_WRITABLE);
}

static JSValue find_handler(JSValueConst exports, int *status) {
    JSPropertyEnum *names = NULL;
    uint32_t count = 0;
    *status = NO_EXPORTS;
    if (JS_GetOwnPropertyNames(ctx, &names, &count, exports, JS_GPN_STRING_MASK)) {
        *status = THREW;
        return JS_EXCEPTION;
    }
    JS_FreePropertyEnum(ctx, names, count);
    if (count == 0)
        return JS_UNDEFINED;
    *status = NO_HANDLER;
    const char *candidates[] = { *wanted ? wanted : "default", *wanted ? NULL : "handler" };
    for (int i = 0; i < 2 && candidates[i]; i++) {
        JSAtom name = JS_NewAtom(ctx, candidates[i]);
        int there = JS_HasProperty(ctx, exports, name);
        JSValue value = there > 0 ? JS_GetProperty(ctx, exports, name) : JS_UNDEFINED;
        JS_FreeAtom(ctx, name);
        if (there > 0) {
            *status = JS_IsException(value) ? THREW : DONE;
            return value;
        }
    }
    return JS_UNDEFINED;
}

static int not_a_function(JSValueConst value) {
    const char *what = JS_IsFunction(ctx, value)   ? "a class"
                       : JS_IsUndefined(value)     ? "undefined"
                       : JS_IsNull(value)          ? "null"
                       : JS_IsPromise(value)       ? "a promise"
                       : JS_IsArray(value)         ? "an array"
                       : JS_IsObject(value)        ? "an object"
                       : JS_IsString(value)        ? "a string"
                       : JS_IsNumber(value)        ? "a number"
                                                   : "no function";
    out_text(JS_NewString(ctx, what));
    return NOT_FUNCTION;
}

// Drops what top-level code has left behind, for the image.
static int tidy(void) {
    timers_drop();
    rejections_drop();
    random_reset();
    JS_RunGC(runtime);
    JSMemoryUsage usage;
    JS_ComputeMemoryUsage(runtime, &usage);
    // A short call ends before the first collection.
    JS_SetGCThreshold(runtime, usage.malloc_size + (usage.malloc_size >> 1) + (2 << 20));
    heap_seal();
    scrubbing = false;
    return DONE;
}

// The script has been evaluated: what `fn` is now is called, whatever it is.
static int loaded_script(void) {
    if (!failed) {
        JSValue value = JS_Eval(ctx, "fn", 2, "lyra:fn", JS_EVAL_TYPE_GLOBAL);
        if (JS_IsException(value)) {
            out_exception();
            return THREW;
        }
        handler = value;
        class = JS_IsFunction(ctx, handler) && is_class(handler);
    }
    return tidy();
}

// The module has been evaluated: finds the handler and tidies up for the image.
static int loaded(void) {
    JSValue exports = JS_GetModuleNamespace(ctx, module);
    if (JS_IsException(exports)) {
        out_exception();
        return THREW;
    }
    int status;
    JSValue value = find_handler(exports, &status);
    JS_FreeValue(ctx, exports);
    if (status == THREW)
        out_exception();
    if (status != DONE)
        return status;
    if (!JS_IsFunction(ctx, value) || is_class(value)) {
        status = not_a_function(value);
        JS_FreeValue(ctx, value);
        return status;
    }
    handler = value;
    if (spreads) {
        int64_t parameters = 0;
        if (JS_GetLength(ctx, handler, &parameters)) {
            out_exception();
            return THREW;
        }
        spreads = parameters >= 2;
    }
    return tidy();
}

static int run(bool loading) {
    JSValue result;
    int status = run_until_settled(waited, &result);
    if (status == WAITING)
        return status;
    JS_FreeValue(ctx, take_waited());
    if (status == DONE && loading) {
        JS_FreeValue(ctx, result);
        status = form >= TEXT ? loaded_script() : loaded();
    } else if (status == DONE) {
        status = result_of(result, limit);
    }
    if (!loading)
        rejections_report();
    return status;
}

// Evaluates a source of the form `as`; `name`: the export that is the handler ("": `default`, then `handler`). Both end
// with a NUL.
EXPORT(load) int load(char *source, size_t length, const char *name, int as) {
    form = as;
    spreads = as != MODULE;
    wanted = name;
    int type = as >= TEXT ? JS_EVAL_TYPE_GLOBAL : JS_EVAL_TYPE_MODULE;
    JSValue code = JS_Eval(ctx, source, length, "function.js", type | JS_EVAL_FLAG_COMPILE_ONLY);
    memset(source, 0, length);
    free(source);
    if (JS_IsException(code)) {
        out_exception();
        return UNPARSED;
    }
    if (as >= TEXT) {
        JSValue value = JS_EvalFunction(ctx, code);
        if (JS_IsException(value)) {
            failed = true;
            failure = JS_GetException(ctx);
        }
        JS_FreeValue(ctx, value);
        // Jobs that the script has left run before the image is made.
        waited = JS_NewSettledPromise(ctx, false, JS_UNDEFINED);
        return run(true);
    }
    module = JS_VALUE_GET_PTR(code);
    waited = JS_EvalFunction(ctx, code);
    if (JS_IsException(waited)) {
        waited = JS_UNDEFINED;
        out_exception();
        return THREW;
    }
    return run(true);
}

EXPORT(resume) int resume(void) { return run(scrubbing); }

// Nothing of an earlier call of this instance may be left to run.
static void renew(void) {
    out_clear();
    timers_drop();
    rejections_drop();
    JS_FreeValue(ctx, take_waited());
    context_renew();
}

// Calls `fn` of a script: an array is its arguments, and it gets nothing else.
static JSValue call_script(JSValueConst event) {
    if (failed)
        return JS_Throw(ctx, JS_DupValue(ctx, failure));
    if (!JS_IsFunction(ctx, handler))
        return JS_ThrowTypeError(ctx, "fn is not a function");
    if (class) {
        JSValue name = JS_GetPropertyStr(ctx, handler, "name");
        const char *text = JS_IsException(name) ? NULL : JS_ToCString(ctx, name);
        JS_FreeValue(ctx, name);
        if (!text)
            return JS_EXCEPTION;
        JS_ThrowTypeError(ctx, "Class constructor %s cannot be invoked without 'new'", text);
        JS_FreeCString(ctx, text);
        return JS_EXCEPTION;
    }
    int64_t count = 0;
    if (!JS_IsArray(event))
        return JS_Call(ctx, handler, JS_UNDEFINED, 1, &event);
    if (JS_GetLength(ctx, event, &count))
        return JS_EXCEPTION;
    if (count >= 65536)
        return JS_ThrowRangeError(ctx, "too many arguments");
    JSValue *arguments = js_malloc(ctx, (count + 1) * sizeof *arguments);
    if (!arguments)
        return JS_EXCEPTION;
    for (int64_t i = 0; i < count; i++)
        arguments[i] = JS_GetPropertyInt64(ctx, event, i);
    JSValue result = JS_Call(ctx, handler, JS_UNDEFINED, (int)count, arguments);
    for (int64_t i = 0; i < count; i++)
        JS_FreeValue(ctx, arguments[i]);
    js_free(ctx, arguments);
    return result;
}

static JSValue call_handler(JSValueConst event) {
    if (form >= TEXT)
        return call_script(event);
    JSValue context = context_object();
    if (JS_IsException(context))
        return JS_EXCEPTION;
    JSValue result;
    int64_t count = 0;
    if (spreads && JS_IsArray(event) && JS_GetLength(ctx, event, &count) == 0 && count < 65536) {
        JSValue *arguments = js_malloc(ctx, (count + 1) * sizeof *arguments);
        if (!arguments) {
            JS_FreeValue(ctx, context);
            return JS_EXCEPTION;
        }
        for (int64_t i = 0; i < count; i++)
            arguments[i] = JS_GetPropertyInt64(ctx, event, i);
        arguments[count] = context;
        result = JS_Call(ctx, handler, JS_UNDEFINED, (int)count + 1, arguments);
        for (int64_t i = 0; i < count; i++)
            JS_FreeValue(ctx, arguments[i]);
        js_free(ctx, arguments);
    } else {
        JSValueConst arguments[] = { event, context };
        result = JS_Call(ctx, handler, JS_UNDEFINED, 2, arguments);
    }
    JS_FreeValue(ctx, context);
    return result;
}

// Calls the handler with an event (JSON that ends with a NUL). `allocated`: it is not in the inbox.
EXPORT(call) int call(char *event, size_t length, int allocated, size_t max_result) {
    limit = max_result;
    if (called)
        renew();
    called = true;
    JSValue value = JS_ParseJSON(ctx, event, length, "event");
    if (allocated)
        free(event);
    if (JS_IsException(value)) {
        out_exception();
        return BAD_EVENT;
    }
    JSValue result = call_handler(value);
    JS_FreeValue(ctx, value);
    if (JS_IsException(result)) {
        out_exception();
        rejections_report();
        return THREW;
    }
    if (!JS_IsObject(result)) {
        if (!JS_IsJobPending(runtime))
            return result_of(result, limit);
        // Jobs that are ready run before the answer, as they do when a handler is async.
        waited = JS_NewSettledPromise(ctx, false, result);
        JS_FreeValue(ctx, result);
    } else if (JS_IsPromise(result)) {
        waited = result;
    } else {
        // May be a thenable, which the promise then follows.
        JSValue settle[2];
        waited = JS_NewPromiseCapability(ctx, settle);
        if (!JS_IsException(waited)) {
            JSValue done = JS_Call(ctx, settle[0], JS_UNDEFINED, 1, &result);
            JS_FreeValue(ctx, done);
            JS_FreeValue(ctx, settle[0]);
            JS_FreeValue(ctx, settle[1]);
        }
        JS_FreeValue(ctx, result);
    }
    if (JS_IsException(waited)) {
        waited = JS_UNDEFINED;
        out_exception();
        return THREW;
    }
    return run(false);
}
