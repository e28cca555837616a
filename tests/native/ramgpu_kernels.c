/*
 * Arithmetic for the GPU made of RAM (ramgpu.c): MatMul, BiasAdd and Relu in float32.
 *
 * With these, what a Dense layer computes is held by the device that computes it, as on a real card; every other
 * operation still runs on the CPU. Loaded with tf.load_op_library.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/kernels.h"
#include "tensorflow/c/tf_tensor.h"

#define MAX_RANK 8

/* The inputs of one computation and its output, which has `rank` dimensions; NULL after a failure. */
struct work {
  TF_Tensor *first;
  TF_Tensor *second;
  TF_Tensor *output;
  TF_Status *status;
};

static struct work begin(TF_OpKernelContext *context, int inputs) {
  struct work work = {NULL, NULL, NULL, TF_NewStatus()};
  TF_GetInput(context, 0, &work.first, work.status);
  if (inputs > 1) TF_GetInput(context, 1, &work.second, work.status);
  return work;
}

static float *allocate(TF_OpKernelContext *context, struct work *work, const int64_t *sizes, int rank) {
  size_t bytes = sizeof(float);
  for (int i = 0; i < rank; i++) bytes *= (size_t)sizes[i];
  work->output = TF_AllocateOutput(context, 0, TF_FLOAT, sizes, rank, bytes, work->status);
  if (TF_GetCode(work->status) == TF_OK) return TF_TensorData(work->output);
  TF_OpKernelContext_Failure(context, work->status);
  return NULL;
}

static float *allocate_like_first(TF_OpKernelContext *context, struct work *work) {
  int64_t sizes[MAX_RANK];
  int rank = TF_NumDims(work->first);
  for (int i = 0; i < rank; i++) sizes[i] = TF_Dim(work->first, i);
  return allocate(context, work, sizes, rank);
}

static void end(struct work *work) {
  if (work->output) TF_DeleteTensor(work->output);
  if (work->second) TF_DeleteTensor(work->second);
  TF_DeleteTensor(work->first);
  TF_DeleteStatus(work->status);
}

struct transposed {
  unsigned char first;
  unsigned char second;
};

static void *matmul_create(TF_OpKernelConstruction *construction) {
  struct transposed *transposed = malloc(sizeof *transposed);
  TF_Status *status = TF_NewStatus();
  TF_OpKernelConstruction_GetAttrBool(construction, "transpose_a", &transposed->first, status);
  TF_OpKernelConstruction_GetAttrBool(construction, "transpose_b", &transposed->second, status);
  TF_DeleteStatus(status);
  return transposed;
}

static void matmul_delete(void *transposed) { free(transposed); }

static void matmul(void *kernel, TF_OpKernelContext *context) {
  const struct transposed *transposed = kernel;
  struct work work = begin(context, 2);
  int64_t rows = TF_Dim(work.first, transposed->first ? 1 : 0);
  int64_t inner = TF_Dim(work.first, transposed->first ? 0 : 1);
  int64_t columns = TF_Dim(work.second, transposed->second ? 0 : 1);
  int64_t sizes[2] = {rows, columns};
  const float *a = TF_TensorData(work.first);
  const float *b = TF_TensorData(work.second);
  float *c = allocate(context, &work, sizes, 2);
  if (c) memset(c, 0, sizeof(float) * (size_t)(rows * columns));
  for (int64_t i = 0; c && i < rows; i++)
    for (int64_t k = 0; k < inner; k++) {
      float value = transposed->first ? a[k * rows + i] : a[i * inner + k];
      for (int64_t j = 0; j < columns; j++)
        c[i * columns + j] += value * (transposed->second ? b[j * inner + k] : b[k * columns + j]);
    }
  end(&work);
}

static void bias_add(void *kernel, TF_OpKernelContext *context) {
  struct work work = begin(context, 2);
  size_t count = TF_TensorByteSize(work.first) / sizeof(float);
  size_t columns = TF_TensorByteSize(work.second) / sizeof(float);
  const float *values = TF_TensorData(work.first);
  const float *bias = TF_TensorData(work.second);
  float *sums = allocate_like_first(context, &work);
  for (size_t i = 0; sums && i < count; i++) sums[i] = values[i] + bias[i % columns];
  end(&work);
}

static void relu(void *kernel, TF_OpKernelContext *context) {
  struct work work = begin(context, 1);
  size_t count = TF_TensorByteSize(work.first) / sizeof(float);
  const float *values = TF_TensorData(work.first);
  float *positive = allocate_like_first(context, &work);
  for (size_t i = 0; positive && i < count; i++) positive[i] = values[i] > 0 ? values[i] : 0;
  end(&work);
}

static void add(const char *operation, void *(*create)(TF_OpKernelConstruction *),
                void (*compute)(void *, TF_OpKernelContext *), void (*delete)(void *)) {
  TF_Status *status = TF_NewStatus();
  TF_KernelBuilder *builder = TF_NewKernelBuilder(operation, "GPU", create, compute, delete);
  TF_KernelBuilder_TypeConstraint(builder, "T", TF_FLOAT, status);
  TF_RegisterKernelBuilder(operation, builder, status);
  TF_DeleteStatus(status);
}

__attribute__((constructor)) static void add_all(void) {
  add("MatMul", matmul_create, matmul, matmul_delete);
  add("BiasAdd", NULL, bias_add, NULL);
  add("Relu", NULL, relu, NULL);
}
