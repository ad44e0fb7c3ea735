// What scripts get from the host: the natives that the prelude builds the globals from, and the context of a call.
#include "guest.h"

#include <string.h>

#define COUNT(array) (sizeof array / sizeof *array)

static JSValue described = JS_UNDEFINED; // the prelude's function that shows a value

// The text that the host has ready; -1: none.
static JSValue taken(int length) {
    if (length < 0)
        return JS_UNDEFINED;
    char *text = js_malloc(ctx, (size_t)length + 1);
    if (!text)
        return JS_EXCEPTION;
    host_take(text);
    JSValue string = JS_NewStringLen(ctx, text, length);
    js_free(ctx, text);
    return string;
}

// === natives ===

// log(level, text)
static JSValue native_log(JSContext *c, JSValueConst this_value, int argc, JSValueConst *argv) {
    int32_t level;
    size_t length;
    if (JS_ToInt32(c, &level, argv[0]))
        return JS_EXCEPTION;
    const char *text = JS_ToCStringLen(c, &length, argv[1]);
    if (!text)
        return JS_EXCEPTION;
    host_log(level, text, length);
    JS_FreeCString(c, text);
    return JS_UNDEFINED;
}

// url(what, a, b): see the host for `what`.
static JSValue native_url(JSContext *c, JSValueConst this_value, int argc, JSValueConst *argv) {
    int32_t what;
    size_t a_length, b_length = 0;
    if (JS_ToInt32(c, &what, argv[0]))
        return JS_EXCEPTION;
    const char *a = JS_ToCStringLen(c, &a_length, argv[1]);
    if (!a)
        return JS_EXCEPTION;
    const char *b = JS_IsUndefined(argv[2]) ? NULL : JS_ToCStringLen(c, &b_length, argv[2]);
    JSValue result = JS_EXCEPTION;
    if (b || JS_IsUndefined(argv[2]))
        result = taken(host_url(what, a, a_length, b, b_length));
    JS_FreeCString(c, a);
    if (b)
        JS_FreeCString(c, b);
    return result;
}

// The bytes of an ArrayBuffer, or of `length` bytes of it from `offset`.
static const uint8_t *bytes_of(JSContext *c, JSValueConst *argv, size_t *length) {
    int64_t offset, wanted;
    size_t size;
    if (JS_ToInt64(c, &offset, argv[1]) || JS_ToInt64(c, &wanted, argv[2]))
        return NULL;
    static uint8_t none;
    uint8_t *bytes = JS_GetArrayBuffer(c, &size, argv[0]);
    if (!bytes) {
        if (JS_HasException(c))
            return NULL;
        size = 0;
        bytes = &none;
    }
    if (offset < 0 || wanted < 0 || (uint64_t)offset > size || (uint64_t)wanted > size - (size_t)offset) {
        JS_ThrowRangeError(c, "the bytes are outside of their buffer");
        return NULL;
    }
    *length = (size_t)wanted;
    return bytes + offset;
}

// decode(buffer, offset, length, encoding, flags): undefined if the bytes are malformed and must not be.
static JSValue native_decode(JSContext *c, JSValueConst this_value, int argc, JSValueConst *argv) {
    size_t length, label_length;
    int32_t flags;
    const uint8_t *bytes = bytes_of(c, argv, &length);
    if (!bytes || JS_ToInt32(c, &flags, argv[4]))
        return JS_EXCEPTION;
    const char *label = JS_ToCStringLen(c, &label_length, argv[3]);
    if (!label)
        return JS_EXCEPTION;
    JSValue result = taken(host_decode(label, label_length, bytes, length, flags));
    JS_FreeCString(c, label);
    return result;
}

// encoding(label): its name, or undefined.
static JSValue native_encoding(JSContext *c, JSValueConst this_value, int argc, JSValueConst *argv) {
    size_t length;
    const char *label = JS_ToCStringLen(c, &length, argv[0]);
    if (!label)
        return JS_EXCEPTION;
    JSValue result = taken(host_encoding(label, length));
    JS_FreeCString(c, label);
    return result;
}

// encode(text): an ArrayBuffer with its UTF-8.
static JSValue native_encode(JSContext *c, JSValueConst this_value, int argc, JSValueConst *argv) {
    size_t length;
    const char *text = JS_ToCStringLen(c, &length, argv[0]);
    if (!text)
        return JS_EXCEPTION;
    JSValue buffer = JS_NewArrayBufferCopy(c, (const uint8_t *)text, length);
    JS_FreeCString(c, text);
    return buffer;
}

// random(buffer, offset, length): fills the bytes.
static JSValue native_random(JSContext *c, JSValueConst this_value, int argc, JSValueConst *argv) {
    size_t length;
    const uint8_t *bytes = bytes_of(c, argv, &length);
    if (!bytes)
        return JS_EXCEPTION;
    host_random((void *)bytes, length);
    return JS_UNDEFINED;
}

// kind(value): what a value is inside, whatever its prototype says.
static JSValue native_kind(JSContext *c, JSValueConst this_value, int argc, JSValueConst *argv) {
    JSValueConst v = argv[0];
    const char *kind = JS_IsArray(v)         ? "array"
                       : JS_IsFunction(c, v) ? "function"
                       : JS_IsError(v)       ? "error"
                       : JS_IsPromise(v)     ? "promise"
                       : JS_IsProxy(v)       ? "proxy"
                       : JS_IsDate(v)        ? "date"
                       : JS_IsRegExp(v)      ? "regexp"
                       : JS_IsMap(v)         ? "map"
                       : JS_IsSet(v)         ? "set"
                       : JS_IsWeakMap(v)     ? "weakmap"
                       : JS_IsWeakSet(v)     ? "weakset"
                       : JS_IsWeakRef(v)     ? "weakref"
                       : JS_IsDataView(v)    ? "dataview"
                       : JS_IsArrayBuffer(v) ? "buffer"
                       : JS_GetTypedArrayType(v) >= 0 ? "typed"
                                                      : "object";
    return JS_NewString(c, kind);
}

// state(promise): 0 pending, 1 fulfilled, 2 rejected.
static JSValue native_state(JSContext *c, JSValueConst this_value, int argc, JSValueConst *argv) {
    return JS_NewInt32(c, JS_PromiseState(c, argv[0]));
}

static JSValue native_settled(JSContext *c, JSValueConst this_value, int argc, JSValueConst *argv) {
    return JS_PromiseResult(c, argv[0]);
}

static JSValue native_elapsed(JSContext *c, JSValueConst this_value, int argc, JSValueConst *argv) {
    return JS_NewFloat64(c, host_elapsed());
}

static JSValue native_origin(JSContext *c, JSValueConst this_value, int argc, JSValueConst *argv) {
    return JS_NewFloat64(c, host_origin());
}

static const JSCFunctionListEntry natives[] = {
    JS_CFUNC_DEF("log", 2, native_log),           JS_CFUNC_DEF("url", 3, native_url),
    JS_CFUNC_DEF("decode", 5, native_decode),     JS_CFUNC_DEF("encoding", 1, native_encoding),
    JS_CFUNC_DEF("encode", 1, native_encode),     JS_CFUNC_DEF("random", 3, native_random),
    JS_CFUNC_DEF("kind", 1, native_kind),         JS_CFUNC_DEF("state", 1, native_state),
    JS_CFUNC_DEF("settled", 1, native_settled),   JS_CFUNC_DEF("elapsed", 0, native_elapsed),
    JS_CFUNC_DEF("origin", 0, native_origin),
};

// The prelude's source, as an array that ends with a NUL (made by the build from prelude.js).
extern const char prelude_source[];
extern const unsigned prelude_length;

int prelude_define(JSValueConst global) {
    JSValue prelude = JS_Eval(ctx, prelude_source, prelude_length, "lyra:prelude", JS_EVAL_TYPE_GLOBAL);
    if (JS_IsException(prelude))
        return -1;
    JSValue native = JS_NewObject(ctx);
    JS_SetPropertyFunctionList(ctx, native, natives, COUNT(natives));
    described = JS_Call(ctx, prelude, global, 1, &native);
    JS_FreeValue(ctx, native);
    JS_FreeValue(ctx, prelude);
    return JS_IsFunction(ctx, described) ? 0 : -1;
}

JSValue describe(JSValueConst thrown, const char *heading) {
    JSValue prefix = JS_NewString(ctx, heading);
    if (JS_IsException(prefix))
        return prefix;
    JSValueConst arguments[] = { thrown, prefix };
    JSValue text = JS_Call(ctx, described, JS_UNDEFINED, 2, arguments);
    JS_FreeValue(ctx, prefix);
    return text;
}

// === Math.random ===

// xoshiro256** (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2018). Seeded on first use in
// each instance, never in an image: else all instances of a version would draw the same numbers.
static uint64_t random_state[4];
static bool random_seeded;

void random_reset(void) {
    memset(random_state, 0, sizeof random_state);
    random_seeded = false;
}

static uint64_t rotated(uint64_t x, int by) { return (x << by) | (x >> (64 - by)); }

static JSValue math_random(JSContext *c, JSValueConst this_value, int argc, JSValueConst *argv) {
    if (!random_seeded) {
        host_random(random_state, sizeof random_state);
        random_seeded = true;
    }
    uint64_t *s = random_state, drawn = rotated(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotated(s[3], 45);
    return JS_NewFloat64(c, (double)(drawn >> 11) * 0x1p-53);
}

// === the context of a call ===

// The numbers are known to the host. What is not asked for is never copied in.
enum field { INVOCATION_ID, FUNCTION_NAME, FUNCTION_VERSION, TENANT, ENV, MEMORY_LIMIT, DEADLINE, REMAINING };

static JSValue getters[REMAINING], remaining_function;
static JSValue first_context = JS_UNDEFINED; // made for the image, so that a first call gets it for nothing
static JSValue env = JS_UNDEFINED;

static JSValue context_get(JSContext *c, JSValueConst this_value, int argc, JSValueConst *argv, int field) {
    if (field >= MEMORY_LIMIT)
        return JS_NewFloat64(c, host_context_number(field));
    if (field != ENV)
        return taken(host_context_text(field));
    if (JS_IsUndefined(env)) {
        int length = host_context_text(field);
        char *json = js_malloc(c, (size_t)length + 1);
        if (!json)
            return JS_EXCEPTION;
        host_take(json);
        json[length] = 0;
        JSValue parsed = JS_ParseJSON(c, json, length, "env");
        js_free(c, json);
        if (JS_IsException(parsed))
            return parsed;
        env = parsed;
    }
    return JS_DupValue(c, env);
}

static const char *const field_names[] = { "invocationId", "functionName",  "functionVersion", "tenant",
                                           "env",          "memoryLimitMb", "deadlineMs" };

static JSValue new_context(void) {
    JSValue context = JS_NewObject(ctx);
    if (JS_IsException(context))
        return context;
    for (int i = 0; i < REMAINING; i++) {
        JSAtom name = JS_NewAtom(ctx, field_names[i]);
        int done = JS_DefinePropertyGetSet(ctx, context, name, JS_DupValue(ctx, getters[i]), JS_UNDEFINED,
                                           JS_PROP_ENUMERABLE | JS_PROP_CONFIGURABLE);
        JS_FreeAtom(ctx, name);
        if (done < 0)
            goto failed;
    }
    if (JS_DefinePropertyValueStr(ctx, context, "getRemainingTimeInMillis", JS_DupValue(ctx, remaining_function),
                                  JS_PROP_WRITABLE | JS_PROP_CONFIGURABLE) < 0)
        goto failed;
    return context;
failed:
    JS_FreeValue(ctx, context);
    return JS_EXCEPTION;
}

void context_define(void) {
    for (int i = 0; i < REMAINING; i++)
        getters[i] = JS_NewCFunctionMagic(ctx, (JSCFunctionMagic *)context_get, field_names[i], 0,
                                          JS_CFUNC_generic_magic, i);
    remaining_function = JS_NewCFunctionMagic(ctx, (JSCFunctionMagic *)context_get, "getRemainingTimeInMillis", 0,
                                              JS_CFUNC_generic_magic, REMAINING);
    first_context = new_context();
    JSValue global = JS_GetGlobalObject(ctx), math = JS_GetPropertyStr(ctx, global, "Math");
    JS_DefinePropertyValueStr(ctx, math, "random", JS_NewCFunction(ctx, math_random, "random", 0),
                              JS_PROP_WRITABLE | JS_PROP_CONFIGURABLE);
    JS_FreeValue(ctx, math);
    JS_FreeValue(ctx, global);
}

void context_renew(void) {
    JS_FreeValue(ctx, first_context);
    JS_FreeValue(ctx, env);
    first_context = env = JS_UNDEFINED;
}

JSValue context_object(void) {
    if (JS_IsUndefined(first_context))
        return new_context();
    return JS_DupValue(ctx, first_context);
}
