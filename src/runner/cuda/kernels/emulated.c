/* The threads of an emulated block: each has a stack, and they take turns at barriers. */
#include <stdlib.h>
#include <ucontext.h>

enum { STACK = 1 << 16, MOST = 1024 };

static ucontext_t emulated_scheduler, emulated_contexts[MOST];
static char *emulated_stacks[MOST], emulated_done[MOST];
static void (*emulated_kernel)(const void *);
static const void *emulated_arguments;

static void emulated_barrier(void) {
    const i64 thread = emulated_thread;
    swapcontext(&emulated_contexts[thread], &emulated_scheduler);
    emulated_thread = thread;
}

static void emulated_entry(void) {
    const i64 thread = emulated_thread;
    emulated_kernel(emulated_arguments);
    emulated_done[thread] = 1;
}

void emulated_launch(void (*kernel)(const void *), const void *arguments, u32 x, u32 y, u32 block) {
    emulated_kernel = kernel;
    emulated_arguments = arguments;
    emulated_threads = block;
    emulated_blocks[0] = x;
    emulated_blocks[1] = y;
    for (u32 by = 0; by < y; by++) {
        for (u32 bx = 0; bx < x; bx++) {
            emulated_block[0] = bx;
            emulated_block[1] = by;
            for (u32 t = 0; t < block; t++) {
                if (!emulated_stacks[t]) emulated_stacks[t] = malloc(STACK);
                getcontext(&emulated_contexts[t]);
                emulated_contexts[t].uc_stack.ss_sp = emulated_stacks[t];
                emulated_contexts[t].uc_stack.ss_size = STACK;
                emulated_contexts[t].uc_link = &emulated_scheduler;
                makecontext(&emulated_contexts[t], emulated_entry, 0);
                emulated_done[t] = 0;
            }
            for (int running = 1; running;) {
                running = 0;
                for (u32 t = 0; t < block; t++) {
                    if (emulated_done[t]) continue;
                    emulated_thread = t;
                    swapcontext(&emulated_scheduler, &emulated_contexts[t]);
                    running |= !emulated_done[t];
                }
            }
        }
    }
}
