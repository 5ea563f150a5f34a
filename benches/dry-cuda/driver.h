/* What the stand-ins for NVIDIA's libraries share: a device of host memory, kept in libcuda.so.1. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* What lies under a pointer: the values of cudaMemoryType. */
enum { UNREGISTERED = 0, PINNED = 1, DEVICE = 2 };

enum { SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NO_DEVICE = 100, INVALID_DEVICE = 101, NOT_FOUND = 500 };

typedef struct {
    int capturing;
} Stream;

int dry_alloc(void **out, size_t bytes, int kind);
int dry_free(void *pointer);
int dry_kind(const void *pointer);
void dry_copied(const void *to, const void *from, size_t bytes);
void dry_launched(const char *name);
void dry_memory(size_t *available, size_t *total);
int dry_devices(void);
int dry_driver_version(void);
int dry_attribute(int *value, int attribute);
int dry_capture(Stream *stream, int on);
int dry_capturing(const Stream *stream);
void *dry_handle(size_t bytes);
