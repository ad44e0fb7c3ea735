// setTimeout and its kin: the timers are kept here, the host only waits. Ordered by time, then by age.
#include "guest.h"

#include <string.h>

struct timer {
    double due;
    uint64_t age;
    double period; // < 0: once
    uint32_t id;
    int argc;
    JSValue *values; // the callback, then its arguments
};

static struct timer *heap; // a binary heap
static uint32_t count, space, next_id = 1;
static uint64_t next_age;

static bool before(const struct timer *a, const struct timer *b) {
    return a->due != b->due ? a->due < b->due : a->age < b->age;
}

static void place(uint32_t at, struct timer moved) {
    while (at > 0 && before(&moved, &heap[(at - 1) / 2])) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    for (;;) {
        uint32_t child = 2 * at + 1;
        if (child >= count)
            break;
        if (child + 1 < count && before(&heap[child + 1], &heap[child]))
            child++;
        if (!before(&heap[child], &moved))
            break;
        heap[at] = heap[child];
        at = child;
    }
    heap[at] = moved;
}

static struct timer take(uint32_t at) {
    struct timer taken = heap[at];
    count--;
    if (at < count)
        place(at, heap[count]);
    return taken;
}

static void release(struct timer *timer) {
    for (int i = 0; i <= timer->argc; i++)
        JS_FreeValue(ctx, timer->values[i]);
    js_free(ctx, timer->values);
}

static int add(struct timer timer) {
    if (count == space) {
        uint32_t wanted = space ? space * 2 : 8;
        struct timer *larger = js_realloc(ctx, heap, wanted * sizeof *heap);
        if (!larger)
            return -1;
        heap = larger;
        space = wanted;
    }
    timer.age = next_age++;
    place(count++, timer);
    return 0;
}

static JSValue set(JSContext *c, JSValueConst this_value, int argc, JSValueConst *argv, int repeats) {
    if (argc < 1 || !JS_IsFunction(c, argv[0]))
        return JS_ThrowTypeError(c, "the callback of %s must be a function", repeats ? "setInterval" : "setTimeout");
    double delay = 0;
    if (argc > 1 && JS_ToFloat64(c, &delay, argv[1]))
        return JS_EXCEPTION;
    if (!(delay >= 0))
        delay = 0;
    if (delay > INT32_MAX)
        delay = 1; // as browsers and Node do
    if (repeats && delay < 1)
        delay = 1;
    struct timer timer = { .due = host_elapsed() + delay, .period = repeats ? delay : -1, .id = next_id };
    timer.argc = argc > 2 ? argc - 2 : 0;
    timer.values = js_malloc(c, (timer.argc + 1) * sizeof *timer.values);
    if (!timer.values)
        return JS_EXCEPTION;
    timer.values[0] = JS_DupValue(c, argv[0]);
    for (int i = 0; i < timer.argc; i++)
        timer.values[i + 1] = JS_DupValue(c, argv[i + 2]);
    if (add(timer)) {
        release(&timer);
        return JS_EXCEPTION;
    }
    return JS_NewUint32(c, next_id++);
}

static JSValue clear(JSContext *c, JSValueConst this_value, int argc, JSValueConst *argv) {
    double id = 0;
    if (argc > 0 && JS_IsNumber(argv[0]) && JS_ToFloat64(c, &id, argv[0]))
        return JS_EXCEPTION;
    for (uint32_t i = 0; i < count; i++) {
        if (heap[i].id == id) {
            struct timer timer = take(i);
            release(&timer);
            break;
        }
    }
    return JS_UNDEFINED;
}

void timers_define(JSValueConst global) {
    static const JSCFunctionListEntry functions[] = {
        JS_CFUNC_MAGIC_DEF("setTimeout", 2, set, 0),
        JS_CFUNC_MAGIC_DEF("setInterval", 2, set, 1),
        JS_CFUNC_DEF("clearTimeout", 1, clear),
        JS_CFUNC_DEF("clearInterval", 1, clear),
    };
    JS_SetPropertyFunctionList(ctx, global, functions, sizeof functions / sizeof *functions);
}

void timers_drop(void) {
    // Releasing a value may run a finalizer's callback later, but never sets a timer now.
    while (count > 0) {
        struct timer timer = take(count - 1);
        release(&timer);
    }
    js_free(ctx, heap);
    heap = NULL;
    space = 0;
}

bool timers_next(double *due) {
    if (count == 0)
        return false;
    *due = heap[0].due;
    return true;
}

JSValue timers_run(void) {
    struct timer timer = take(0);
    JSValue result;
    if (timer.period >= 0) {
        // An interval may clear itself, or any other, while it runs: so it is back in its place before that.
        struct timer again = timer;
        again.due = host_elapsed() + timer.period;
        again.values = js_malloc(ctx, (timer.argc + 1) * sizeof *again.values);
        if (!again.values) {
            release(&timer);
            return JS_EXCEPTION;
        }
        for (int i = 0; i <= timer.argc; i++)
            again.values[i] = JS_DupValue(ctx, timer.values[i]);
        if (add(again)) {
            release(&again);
            release(&timer);
            return JS_EXCEPTION;
        }
    }
    result = JS_Call(ctx, timer.values[0], JS_UNDEFINED, timer.argc, timer.values + 1);
    release(&timer);
    return result;
}
