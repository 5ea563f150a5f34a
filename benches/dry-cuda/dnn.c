/* libcudnn.so.9 of the dry device: descriptors, and operations that do nothing. */
#include "driver.h"
#include <string.h>

static int handle(void **out) {
    *out = dry_handle(1024);
    return SUCCESS;
}

size_t cudnnGetVersion(void) { return 91400; }
size_t cudnnGetCudartVersion(void) { return 13000; }
const char *cudnnGetErrorString(int status) { return status ? "CUDNN_STATUS_OTHER" : "CUDNN_STATUS_SUCCESS"; }
void cudnnGetLastErrorString(char *text, size_t bytes) { if (bytes) *text = 0; }
/* 0 is MAJOR_VERSION, 1 is MINOR_VERSION, 2 is PATCH_LEVEL. */
int cudnnGetProperty(int property, int *value) { *value = property == 0 ? 9 : property == 1 ? 14 : 0; return SUCCESS; }

typedef struct {
    void *stream;
} Handle;
int cudnnCreate(void **out) { return handle(out); }
int cudnnSetStream(Handle *dnn, void *stream) { dnn->stream = stream; return SUCCESS; }
int cudnnGetStream(Handle *dnn, void **stream) { *stream = dnn->stream; return SUCCESS; }

#define DESCRIPTOR(name) int cudnnCreate##name##Descriptor(void **out) { return handle(out); }
DESCRIPTOR(Activation) DESCRIPTOR(Attn) DESCRIPTOR(Convolution) DESCRIPTOR(Dropout) DESCRIPTOR(Filter) DESCRIPTOR(LRN)
DESCRIPTOR(OpTensor) DESCRIPTOR(Pooling) DESCRIPTOR(RNN) DESCRIPTOR(RNNData) DESCRIPTOR(ReduceTensor)
DESCRIPTOR(SeqData) DESCRIPTOR(SpatialTransformer) DESCRIPTOR(Tensor) DESCRIPTOR(TensorTransform)

typedef struct {
    int type, rank, dims[8], strides[8];
} Tensor;
int cudnnSetTensorNdDescriptor(Tensor *tensor, int type, int rank, const int *dims, const int *strides) {
    if (rank < 1 || rank > 8) return 2000;
    tensor->type = type;
    tensor->rank = rank;
    for (int i = 0; i < rank; i++) tensor->dims[i] = dims[i], tensor->strides[i] = strides[i];
    return SUCCESS;
}
int cudnnGetTensorNdDescriptor(const Tensor *tensor, int wanted, int *type, int *rank, int *dims, int *strides) {
    *type = tensor->type;
    *rank = tensor->rank;
    for (int i = 0; i < wanted && i < 8; i++) dims[i] = tensor->dims[i], strides[i] = tensor->strides[i];
    return SUCCESS;
}

/* The first record of an answer, 48 bytes, all zero: algorithm 0 succeeds without workspace. */
static int first(int wanted, int *found, void *results) {
    *found = wanted > 0;
    if (wanted > 0) memset(results, 0, 48);
    return SUCCESS;
}
#define HEURISTIC(name)                                                                                               \
    int name(void *dnn, void *a, void *b, void *c, void *d, int wanted, int *found, void *results) {                  \
        (void)dnn, (void)a, (void)b, (void)c, (void)d;                                                                \
        return first(wanted, found, results);                                                                         \
    }
HEURISTIC(cudnnGetConvolutionForwardAlgorithm_v7)
HEURISTIC(cudnnGetConvolutionBackwardDataAlgorithm_v7)
HEURISTIC(cudnnGetConvolutionBackwardFilterAlgorithm_v7)
HEURISTIC(cudnnFindConvolutionForwardAlgorithm)
HEURISTIC(cudnnFindConvolutionBackwardDataAlgorithm)
HEURISTIC(cudnnFindConvolutionBackwardFilterAlgorithm)
#define SEARCH(name)                                                                                                  \
    int name(void *dnn, void *a, void *ap, void *b, void *bp, void *c, void *d, void *dp, int wanted, int *found,     \
             void *results) {                                                                                         \
        (void)dnn, (void)a, (void)ap, (void)b, (void)bp, (void)c, (void)d, (void)dp;                                  \
        return first(wanted, found, results);                                                                         \
    }
SEARCH(cudnnFindConvolutionForwardAlgorithmEx)
SEARCH(cudnnFindConvolutionBackwardDataAlgorithmEx)
SEARCH(cudnnFindConvolutionBackwardFilterAlgorithmEx)

#define WORKSPACE(name)                                                                                               \
    int name(void *dnn, void *a, void *b, void *c, void *d, int algorithm, size_t *bytes) {                           \
        (void)dnn, (void)a, (void)b, (void)c, (void)d, (void)algorithm;                                               \
        *bytes = 1 << 20;                                                                                             \
        return SUCCESS;                                                                                               \
    }
WORKSPACE(cudnnGetConvolutionForwardWorkspaceSize)
WORKSPACE(cudnnGetConvolutionBackwardDataWorkspaceSize)
WORKSPACE(cudnnGetConvolutionBackwardFilterWorkspaceSize)
#define REDUCTION(name)                                                                                               \
    int name(void *dnn, void *a, void *b, void *c, size_t *bytes) {                                                   \
        (void)dnn, (void)a, (void)b, (void)c;                                                                         \
        *bytes = 1 << 10;                                                                                             \
        return SUCCESS;                                                                                               \
    }
REDUCTION(cudnnGetReductionIndicesSize)
REDUCTION(cudnnGetReductionWorkspaceSize)
int cudnnDropoutGetStatesSize(void *dnn, size_t *bytes) { (void)dnn; *bytes = 1 << 20; return SUCCESS; }
int cudnnGetRNNTempSpaceSizes(void *dnn, void *rnn, int mode, void *x, size_t *work, size_t *reserve) {
    (void)dnn, (void)rnn, (void)mode, (void)x;
    *work = 1 << 20;
    *reserve = 1 << 20;
    return SUCCESS;
}
int cudnnGetBatchNormalizationForwardTrainingExWorkspaceSize(void *dnn, int mode, int ops, void *x, void *z, void *y,
                                                             void *bn, void *activation, size_t *bytes) {
    (void)dnn, (void)mode, (void)ops, (void)x, (void)z, (void)y, (void)bn, (void)activation;
    *bytes = 1 << 20;
    return SUCCESS;
}
int cudnnGetBatchNormalizationBackwardExWorkspaceSize(void *dnn, int mode, int ops, void *x, void *y, void *dy, void *dz,
                                                      void *dx, void *bn, void *activation, size_t *bytes) {
    (void)dnn, (void)mode, (void)ops, (void)x, (void)y, (void)dy, (void)dz, (void)dx, (void)bn, (void)activation;
    *bytes = 1 << 20;
    return SUCCESS;
}
int cudnnGetBatchNormalizationTrainingExReserveSpaceSize(void *dnn, int mode, int ops, void *activation, void *x,
                                                         size_t *bytes) {
    (void)dnn, (void)mode, (void)ops, (void)activation, (void)x;
    *bytes = 1 << 20;
    return SUCCESS;
}

/* The backend interface, as far as cudnn_frontend asks: a heuristic (202) finds one configuration of one engine (300),
 * number 0 (1301), whose plan needs no workspace (303, 402) nor shared memory (304); there is nothing else to tell. */
int cudnnBackendCreateDescriptor(int type, void **out) { (void)type; return handle(out); }
int cudnnBackendGetAttribute(void *d, int name, int type, int64_t wanted, int64_t *found, void *values) {
    (void)d, (void)type;
    int number = name == 303 || name == 402 || name == 1301;
    if (found) *found = number || name == 304 || name == 202 || name == 300;
    if (number && wanted && values) *(int64_t *)values = 0;
    if (name == 304 && wanted && values) *(int32_t *)values = 0;
    return SUCCESS;
}

#define NOTHING(name) int cudnn##name(void) { return SUCCESS; }
NOTHING(ActivationBackward) NOTHING(ActivationForward) NOTHING(AddTensor) NOTHING(AdvVersionCheck)
NOTHING(AdvInferVersionCheck) NOTHING(AdvTrainVersionCheck) NOTHING(CnnVersionCheck) NOTHING(CnnInferVersionCheck)
NOTHING(CnnTrainVersionCheck) NOTHING(GraphVersionCheck) NOTHING(OpsVersionCheck) NOTHING(OpsInferVersionCheck)
NOTHING(OpsTrainVersionCheck) NOTHING(BackendDestroyDescriptor) NOTHING(BackendExecute) NOTHING(BackendFinalize)
NOTHING(BackendInitialize) NOTHING(BackendSetAttribute) NOTHING(BatchNormalizationBackward)
NOTHING(BatchNormalizationBackwardEx) NOTHING(BatchNormalizationForwardInference)
NOTHING(BatchNormalizationForwardTraining) NOTHING(BatchNormalizationForwardTrainingEx)
NOTHING(BuildRNNDynamic) NOTHING(ConvolutionBackwardBias) NOTHING(ConvolutionBackwardData)
NOTHING(ConvolutionBackwardFilter) NOTHING(ConvolutionBiasActivationForward) NOTHING(ConvolutionForward)
NOTHING(DeriveBNTensorDescriptor) NOTHING(Destroy) NOTHING(DestroyActivationDescriptor)
NOTHING(DestroyConvolutionDescriptor) NOTHING(DestroyDropoutDescriptor) NOTHING(DestroyFilterDescriptor)
NOTHING(DestroyLRNDescriptor) NOTHING(DestroyOpTensorDescriptor) NOTHING(DestroyPoolingDescriptor)
NOTHING(DestroyRNNDataDescriptor) NOTHING(DestroyRNNDescriptor) NOTHING(DestroyReduceTensorDescriptor)
NOTHING(DestroyTensorDescriptor) NOTHING(DropoutBackward) NOTHING(DropoutForward) NOTHING(GetRNNWeightParams)
NOTHING(GetRNNWeightSpaceSize) NOTHING(LRNCrossChannelBackward) NOTHING(LRNCrossChannelForward)
NOTHING(NormalizationBackward) NOTHING(NormalizationForwardInference) NOTHING(NormalizationForwardTraining)
NOTHING(OpTensor) NOTHING(PoolingBackward) NOTHING(PoolingForward) NOTHING(RNNBackwardData_v8)
NOTHING(RNNBackwardWeights_v8) NOTHING(RNNForward) NOTHING(ReduceTensor) NOTHING(ScaleTensor)
NOTHING(SetActivationDescriptor) NOTHING(SetActivationDescriptorSwishBeta) NOTHING(SetConvolution2dDescriptor)
NOTHING(SetConvolutionGroupCount) NOTHING(SetConvolutionMathType) NOTHING(SetConvolutionNdDescriptor)
NOTHING(SetConvolutionReorderType) NOTHING(SetDropoutDescriptor) NOTHING(SetFilter4dDescriptor)
NOTHING(SetFilterNdDescriptor) NOTHING(SetLRNDescriptor) NOTHING(SetOpTensorDescriptor)
NOTHING(SetPooling2dDescriptor) NOTHING(SetPoolingNdDescriptor) NOTHING(SetRNNDataDescriptor)
NOTHING(SetRNNDescriptor_v8) NOTHING(SetReduceTensorDescriptor) NOTHING(SetTensor) NOTHING(SetTensor4dDescriptor)
NOTHING(SetTensor4dDescriptorEx) NOTHING(SoftmaxBackward) NOTHING(SoftmaxForward) NOTHING(TransformTensor)
