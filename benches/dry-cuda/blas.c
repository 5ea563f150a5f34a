/* libcublas.so.13 and libcublasLt.so.13 of the dry device: handles, and products that are not taken. */
#include "driver.h"
#include <string.h>

static int handle(void **out) {
    *out = dry_handle(256);
    return SUCCESS;
}

#ifdef LT
int cublasLtCreate(void **out) { return handle(out); }
int cublasLtMatmulDescCreate(void **out) { return handle(out); }
int cublasLtMatrixLayoutCreate(void **out) { return handle(out); }
int cublasLtMatrixTransformDescCreate(void **out) { return handle(out); }
int cublasLtMatmulPreferenceCreate(void **out) { return handle(out); }
/* A result is 96 bytes, and all zero it is a valid one. */
int cublasLtMatmulAlgoGetHeuristic(void *lt, void *operation, void *a, void *b, void *c, void *d, void *preference,
                                   int wanted, void *results, int *found) {
    (void)lt, (void)operation, (void)a, (void)b, (void)c, (void)d, (void)preference;
    *found = wanted ? 1 : 0;
    if (wanted) memset(results, 0, 96);
    return SUCCESS;
}
#else
int cublasCreate_v2(void **out) { return handle(out); }
int cublasGetMathMode(void *blas, int *mode) { (void)blas; *mode = 0; return SUCCESS; }
const char *cublasGetStatusName(int status) { return status ? "CUBLAS_STATUS_OTHER" : "CUBLAS_STATUS_SUCCESS"; }
const char *cublasGetStatusString(int status) { return cublasGetStatusName(status); }
#endif
