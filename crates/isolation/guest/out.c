// What a call leaves for the host: up to four texts, read from memory by the host without a further call.
//
// Nothing here calls functions that a script could have replaced, other than those the language says are
// called (toJSON, getters, toString); what those throw is dropped.
#include "guest.h"

#include <string.h>

struct text {
    const char *bytes;
    uint32_t length;
};

// The layout is known to the host.
static struct {
    struct text texts[4];
    double wait;
} out;

EXPORT(out) void *out_address(void) { return &out; }

void out_clear(void) {
    for (int i = 0; i < 4; i++) {
        if (out.texts[i].bytes)
            JS_FreeCString(ctx, out.texts[i].bytes);
        out.texts[i] = (struct text){ 0 };
    }
}

void out_wait(double ms) { out.wait = ms; }

static void drop_exception(void) { JS_FreeValue(ctx, JS_GetException(ctx)); }

// Takes `value`; leaves the text empty if it can't be one.
static bool put(int at, JSValue value) {
    size_t length = 0;
    const char *bytes = JS_ToCStringLen(ctx, &length, value);
    JS_FreeValue(ctx, value);
    if (!bytes) {
        drop_exception();
        return false;
    }
    if (out.texts[at].bytes)
        JS_FreeCString(ctx, out.texts[at].bytes);
    out.texts[at] = (struct text){ bytes, length };
    return true;
}

void out_text(JSValue string) { put(0, string); }

// A property of what was thrown; undefined if there is none or its getter throws.
static JSValue get(JSValueConst thrown, const char *name) {
    JSValue value = JS_GetPropertyStr(ctx, thrown, name);
    if (JS_IsException(value)) {
        drop_exception();
        return JS_UNDEFINED;
    }
    return value;
}

static bool put_property(int at, JSValueConst thrown, const char *name) {
    JSValue value = get(thrown, name);
    if (JS_IsString(value))
        return put(at, value);
    JS_FreeValue(ctx, value);
    return false;
}

// An object that is neither ordinary nor an array says best itself what it is: an error, a date, a function.
static bool is_ordinary(JSValueConst value) {
    JSValue plain = JS_NewObject(ctx);
    bool ordinary = JS_GetClassID(value) == JS_GetClassID(plain);
    JS_FreeValue(ctx, plain);
    return ordinary || JS_IsArray(value);
}

// The value as `String` shows it, but: nothing for null, the characters of a byte array and, in form TEXT, the JSON of
// ordinary objects and arrays that have one.
static JSValue as_text(JSValueConst value) {
    if (JS_IsNull(value))
        return JS_NewString(ctx, "");
    if (JS_IsSymbol(value))
        return describe(value, "");
    if (JS_IsObject(value)) {
        if (JS_GetTypedArrayType(value) == JS_TYPED_ARRAY_UINT8) {
            size_t length = 0;
            const uint8_t *bytes = JS_GetUint8Array(ctx, &length, value);
            if (bytes)
                return JS_NewStringLen(ctx, (const char *)bytes, length);
            drop_exception();
        } else if (form == TEXT && is_ordinary(value)) {
            JSValue json = JS_JSONStringify(ctx, value, JS_UNDEFINED, JS_UNDEFINED);
            if (JS_IsString(json))
                return json;
            if (JS_IsException(json))
                drop_exception();
            JS_FreeValue(ctx, json);
        }
    }
    return JS_ToString(ctx, value);
}

// The text of what was thrown, whatever happens.
static void put_text_of(JSValueConst thrown) {
    JSValue text = as_text(thrown);
    if (JS_IsException(text)) {
        drop_exception();
        text = describe(thrown, "");
    }
    if (JS_IsException(text)) {
        drop_exception();
        text = JS_NewString(ctx, "something was thrown that can't be shown");
    }
    put(3, text);
}

void out_thrown(JSValue thrown) {
    out_clear();
    bool named = false, told = false;
    if (form >= TEXT)
        put_text_of(thrown);
    if (JS_IsObject(thrown)) {
        named = put_property(0, thrown, "name");
        told = put_property(1, thrown, "message");
        put_property(2, thrown, "stack");
    }
    if (!named)
        put(0, JS_NewString(ctx, "Error"));
    if (!told && JS_IsString(thrown)) {
        told = put(1, JS_DupValue(ctx, thrown));
    } else if (!told) {
        JSValue text = describe(thrown, "");
        if (JS_IsException(text))
            drop_exception();
        else
            told = put(1, text);
    }
    if (!told)
        put(1, JS_NewString(ctx, "something was thrown that can't be shown"));
    JS_FreeValue(ctx, thrown);
}

void out_exception(void) { out_thrown(JS_GetException(ctx)); }

static bool longer(JSValueConst string, size_t limit) {
    int64_t length = 0;
    return JS_GetLength(ctx, string, &length) == 0 && length > 0 && (uint64_t)length > limit;
}

int text_of(JSValue value, size_t limit) {
    JSValue text = as_text(value);
    JS_FreeValue(ctx, value);
    if (JS_IsException(text)) {
        out_exception();
        return THREW;
    }
    if (longer(text, limit)) {
        JS_FreeValue(ctx, text);
        return TOO_LARGE;
    }
    if (!put(0, text)) {
        out_thrown(JS_NewString(ctx, "out of memory"));
        return THREW;
    }
    return out.texts[0].length > limit ? TOO_LARGE : DONE;
}

int result_of(JSValue value, size_t limit) {
    if (form >= TEXT)
        return text_of(value, limit);
    // A text has at least as many bytes as UTF-16 units: too long ones need not be built.
    if (JS_IsString(value) && longer(value, limit)) {
        JS_FreeValue(ctx, value);
        return TOO_LARGE;
    }
    if (JS_IsUndefined(value)) {
        out_text(JS_NewString(ctx, "null"));
        return DONE;
    }
    JSValue json = JS_JSONStringify(ctx, value, JS_UNDEFINED, JS_UNDEFINED);
    if (JS_IsException(json)) {
        JS_FreeValue(ctx, value);
        JSValue why = JS_GetException(ctx);
        out_thrown(why);
        return BAD_RESULT;
    }
    if (JS_IsUndefined(json)) {
        bool function = JS_IsFunction(ctx, value);
        JS_FreeValue(ctx, value);
        out_thrown(JS_NewString(ctx, function ? "a function has no JSON form" : "the value has no JSON form"));
        return BAD_RESULT;
    }
    JS_FreeValue(ctx, value);
    if (longer(json, limit)) {
        JS_FreeValue(ctx, json);
        return TOO_LARGE;
    }
    size_t length = 0;
    const char *bytes = JS_ToCStringLen(ctx, &length, json);
    JS_FreeValue(ctx, json);
    if (!bytes) {
        out_exception();
        return THREW;
    }
    out.texts[0] = (struct text){ bytes, length };
    return length > limit ? TOO_LARGE : DONE;
}
