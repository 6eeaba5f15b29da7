/* SPDX-License-Identifier: Apache-2.0 */
#include "core/ranks/projection.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "core/environment.h"
#include "core/library.h"
#include "core/portable/lang.h"

#define CBLAS_VARIABLE "FASTATTN_CBLAS_LIBRARY"

/* As cblas.h numbers them. */
enum { CBLAS_ROW_MAJOR = 101, CBLAS_NO_TRANS = 111 };

static struct {
    void (*sgemm)(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a,
                  int lda, const float *b, int ldb, float beta, float *c, int ldc);
} cblas;

static char cblas_name[64], cblas_failure[256];
static pthread_once_t cblas_once = PTHREAD_ONCE_INIT;

/* A name at a time, to know which it was. */
static void load(void)
{
    static const char *const names[] = {"libopenblas.so.0", "libcblas.so.3", "libblas.so.3"};
    static const fa_library_symbol symbols[] = {{"cblas_sgemm", 0}};
    const char *forced = fa_environment(CBLAS_VARIABLE);
    for (int i = 0; i < 3 && cblas_name[0] == '\0'; i++) {
        const char *const one[] = {names[i], NULL};
        fa_library l = {CBLAS_VARIABLE, one, "the CBLAS", "expected cblas_sgemm()", ""};
        if (fa_library_load(&l, symbols, 1, &cblas))
            (void)snprintf(cblas_name, sizeof(cblas_name), "%s", forced && forced[0] ? forced : names[i]);
        else if (forced && forced[0])
            (void)snprintf(cblas_failure, sizeof(cblas_failure), "%s", l.failure);
    }
}

const char *fa_cblas_name(void)
{
    (void)pthread_once(&cblas_once, load);
    return cblas_name[0] ? cblas_name : NULL;
}

const char *fa_cblas_failure(void)
{
    (void)pthread_once(&cblas_once, load);
    return cblas_name[0] ? "" : cblas_failure;
}

void fa_cblas_multiply(const fa_product *p)
{
    cblas.sgemm(CBLAS_ROW_MAJOR, CBLAS_NO_TRANS, CBLAS_NO_TRANS, (int)p->rows, (int)p->width, (int)p->inner,
                1, p->o, (int)p->o_stride, p->w, (int)p->w_stride, 0, p->y, (int)p->y_stride);
}

/* Elements of one row of y, as far as rows [from, to) of w go. */
static void add_rows(const fa_product *p, const float *o, int64_t from, int64_t to, int64_t first,
                     int64_t count, float *restrict y)
{
    for (int64_t k = from; k < to; k++) {
        const float *restrict w = p->w + k * p->w_stride + first;
        const float factor = o[k];
        for (int64_t j = 0; j < count; j++)
            y[j] += factor * w[j];
    }
}

/* In blocks of w that stay in a cache while all rows pass. */
void fa_plain_multiply(const fa_product *p)
{
    enum { INNER = 64, WIDTH = 512 };
    for (int64_t i = 0; i < p->rows; i++)
        memset(p->y + i * p->y_stride, 0, (size_t)p->width * sizeof(float));
    for (int64_t first = 0; first < p->width; first += WIDTH) {
        const int64_t count = FA_MIN(WIDTH, p->width - first);
        for (int64_t k = 0; k < p->inner; k += INNER) {
            for (int64_t i = 0; i < p->rows; i++)
                add_rows(p, p->o + i * p->o_stride, k, FA_MIN(k + INNER, p->inner), first, count,
                         p->y + i * p->y_stride + first);
        }
    }
}
