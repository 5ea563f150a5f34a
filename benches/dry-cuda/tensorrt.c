/* libnvinfer.so.10 and libnvonnxparser.so.10 of the dry device: objects whose every method returns 0. With them the
 * TensorRT provider loads, without which ONNX Runtime's Python module cannot list the kernels of any provider. */
typedef void *Pointer;
static long nothing(void) { return 0; }
static Pointer methods[256];
static Pointer object[64] = {methods};
__attribute__((constructor)) static void fill(void) {
    for (int i = 0; i < 256; i++) methods[i] = (Pointer)nothing;
}
#define OBJECT(name) Pointer name(void) { return object; }
OBJECT(createInferBuilder_INTERNAL) OBJECT(createInferRefitter_INTERNAL) OBJECT(createInferRuntime_INTERNAL)
OBJECT(createNvOnnxParserRefitter_INTERNAL) OBJECT(createNvOnnxParser_INTERNAL) OBJECT(getPluginRegistry)
int getInferLibVersion(void) { return 101300; }
