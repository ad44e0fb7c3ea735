// What the parts of the guest share. The guest is QuickJS-NG with this glue around it, one per sandbox;
// everything in it may be under hostile control, so the host checks every pointer and length that it reads.
#ifndef LYRA_GUEST_H
#define LYRA_GUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "quickjs.h"

#define EXPORT(name) __attribute__((export_name(#name)))
#define IMPORT(name) __attribute__((import_module("lyra"), import_name(#name)))

// How `load`, `call` and `resume` ended. The host has the same numbers (wasm/js/guest.rs).
enum status {
    DONE = 0,         // loaded, or called: `out[0]` is the result
    WAITING = 1,      // nothing to do for `out_wait` ms
    THREW = 2,        // out: name, message, stack; where texts leave, the text of what was thrown
    STUCK = 3,        // waits for a promise that nothing is left to settle
    BAD_RESULT = 4,   // the result is not JSON; out[0] says why
    TOO_LARGE = 5,    // the result has more than `limit` bytes
    BAD_EVENT = 6,    // the event is not JSON; out[0] says why
    UNPARSED = 7,     // the source does not parse; out as THREW
    NO_EXPORTS = 8,   // the module exports nothing
    NO_HANDLER = 9,   // it exports something, but no handler
    NOT_FUNCTION = 10 // the handler is something else; out[0] says what
};

// Imports.
IMPORT(log) extern void host_log(int level, const char *text, size_t length);
IMPORT(random) extern void host_random(void *to, size_t length);
IMPORT(elapsed) extern double host_elapsed(void);     // ms since the instance started
IMPORT(origin) extern double host_origin(void);       // when that was, in ms since the Unix epoch
IMPORT(context_number) extern double host_context_number(int field);
// These four leave their answer with the host, which `take` then copies; they return its length, or -1.
IMPORT(context_text) extern int host_context_text(int field);
IMPORT(url) extern int host_url(int what, const char *a, size_t a_length, const char *b, size_t b_length);
IMPORT(decode) extern int host_decode(const char *label, size_t label_length, const void *bytes, size_t length, int flags);
IMPORT(encoding) extern int host_encoding(const char *label, size_t label_length);
IMPORT(take) extern void host_take(void *to);

// call.c: what a source is, and what leaves the guest. The host has the same numbers (wasm/js/guest.rs).
enum form {
    MODULE = 0,     // a module; JSON leaves
    EXPRESSION = 1, // one function, which the host has put `export default` before; JSON leaves
    TEXT = 2,       // the same as a script, `const fn = ` before it; a text leaves, ordinary objects as JSON
    STRING = 3      // as TEXT, objects as `String` shows them
};
extern int form;

// runtime.c
extern JSRuntime *runtime;
extern JSContext *ctx;

// heap.c
extern const JSMallocFunctions heap_functions;
extern bool scrubbing; // wipe what is freed, so that it does not end up in the image
void heap_seal(void);  // what is allocated from now on lies together

// out.c: what a call leaves for the host.
void out_clear(void);
void out_text(JSValue string);          // takes it
void out_thrown(JSValue thrown);        // takes it
void out_exception(void);               // the pending one
void out_wait(double ms);
int result_of(JSValue value, size_t limit); // takes it; returns a status
int text_of(JSValue value, size_t limit);   // the same for the forms whose results are texts

// timers.c
void timers_define(JSValueConst global);
void timers_drop(void);
bool timers_next(double *due);
JSValue timers_run(void);               // runs the one that is due first

// host.c: what the prelude is given, and the context object of a call.
int prelude_define(JSValueConst global);
void context_define(void);
void context_renew(void);
JSValue context_object(void);           // a new reference
void random_reset(void);

JSValue describe(JSValueConst thrown, const char *heading); // a text that shows what was thrown

// run.c: promises and jobs.
void rejections_define(void);
void rejections_drop(void);
void rejections_report(void);
int run_until_settled(JSValueConst promise, JSValue *result); // DONE: *result is new; else a status

#endif
