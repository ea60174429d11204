/* What the bindings of TensorRT link against, so that they can be imported and looked at; nothing works. */
#define RETURNS_NOTHING(name) void *name(void) { return 0; }
RETURNS_NOTHING(createInferBuilder_INTERNAL)
RETURNS_NOTHING(createInferRuntime_INTERNAL)
RETURNS_NOTHING(createInferRefitter_INTERNAL)
RETURNS_NOTHING(createNvOnnxParser_INTERNAL)
RETURNS_NOTHING(createNvOnnxParserRefitter_INTERNAL)
RETURNS_NOTHING(getPluginRegistry)
RETURNS_NOTHING(getBuilderPluginRegistry)
RETURNS_NOTHING(initLibNvInferPlugins)
int getInferLibVersion(void) { return 0; }
int getNvOnnxParserVersion(void) { return 0; }
