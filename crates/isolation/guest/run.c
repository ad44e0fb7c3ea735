// Promises and jobs: runs what is ready until the promise that a call waits for is settled. Looks at promises from
// C, so it does not matter what a script did to `Promise.prototype`.
#include "guest.h"

// Rejections that are remembered; more than these are not reported.
#define REJECTIONS 16

static struct { JSValue promise, reason; } rejections[REJECTIONS];
static int rejection_count;

static void forget(int at) {
    JS_FreeValue(ctx, rejections[at].promise);
    JS_FreeValue(ctx, rejections[at].reason);
    rejections[at] = rejections[--rejection_count];
}

static void forget_promise(JSValueConst promise) {
    for (int i = 0; i < rejection_count; i++) {
        if (JS_VALUE_GET_PTR(rejections[i].promise) == JS_VALUE_GET_PTR(promise)) {
            forget(i);
            return;
        }
    }
}

static void track(JSContext *c, JSValueConst promise, JSValueConst reason, bool handled, void *opaque) {
    if (handled) {
        forget_promise(promise);
    } else if (rejection_count < REJECTIONS) {
        rejections[rejection_count].promise = JS_DupValue(c, promise);
        rejections[rejection_count++].reason = JS_DupValue(c, reason);
    }
}

void rejections_define(void) { JS_SetHostPromiseRejectionTracker(runtime, track, NULL); }

void rejections_drop(void) {
    while (rejection_count > 0)
        forget(rejection_count - 1);
}

void rejections_report(void) {
    static const char heading[] = "unhandled promise rejection: ";
    for (int i = 0; i < rejection_count; i++) {
        JSValue line = describe(rejections[i].reason, heading);
        size_t length = 0;
        const char *bytes = JS_IsException(line) ? NULL : JS_ToCStringLen(ctx, &length, line);
        if (bytes) {
            host_log(2, bytes, length);
            JS_FreeCString(ctx, bytes);
        } else {
            JS_FreeValue(ctx, JS_GetException(ctx));
            host_log(2, heading, sizeof heading - 1);
        }
        JS_FreeValue(ctx, line);
    }
    rejections_drop();
}

// Takes what is thrown, if any, as the call's error.
static int fail(void) {
    out_exception();
    return THREW;
}

int run_until_settled(JSValueConst promise, JSValue *result) {
    JSContext *job;
    JS_PromiseMarkAsHandled(ctx, promise);
    for (;;) {
        int ran;
        while ((ran = JS_ExecutePendingJob(runtime, &job)) > 0)
            ;
        if (ran < 0)
            return fail();
        switch (JS_PromiseState(ctx, promise)) {
        case JS_PROMISE_FULFILLED:
            *result = JS_PromiseResult(ctx, promise);
            return DONE;
        case JS_PROMISE_REJECTED:
            forget_promise(promise);
            out_thrown(JS_PromiseResult(ctx, promise));
            return THREW;
        default:
            break;
        }
        double due, now;
        if (!timers_next(&due))
            return STUCK;
        now = host_elapsed();
        if (due > now) {
            out_wait(due - now);
            return WAITING;
        }
        JSValue value = timers_run();
        if (JS_IsException(value))
            return fail();
        JS_FreeValue(ctx, value);
    }
}
