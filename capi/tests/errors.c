/* Calls every function in the wrong way, and in the right one: errors MODEL. What a call returns is
 * compared with what it must; nothing may be read or written out of bounds, which valgrind watches. */
#include "freeze_plan.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int wrong = 0;

static void expect(int line, fp_status found, fp_status expected, const char *text)
{
    int told = expected == FP_OK || strstr(fp_last_error(), text) != NULL;
    if (found != expected || !told) {
        printf("line %d: %d, expected %d with \"%s\": %s\n", line, (int)found, (int)expected, text, fp_last_error());
        wrong = 1;
    }
}

#define IS(call, expected, text) expect(__LINE__, call, expected, text)
#define HOLDS(condition) ((condition) ? (void)0 : (void)(printf("line %d: not %s\n", __LINE__, #condition), wrong = 1))

static unsigned char *bytes_of(const char *path, size_t *length)
{
    FILE *file = fopen(path, "rb");
    unsigned char *bytes = (unsigned char *)malloc(1 << 20);
    *length = file && bytes ? fread(bytes, 1, 1 << 20, file) : 0;
    if (file)
        fclose(file);
    return bytes;
}

static void models(const char *path, fp_model **model)
{
    size_t length, count = 0;
    unsigned char *bytes = bytes_of(path, &length);
    char *text;
    const char *name;
    fp_module module;
    fp_tensor tensor;
    fp_model *copy = NULL;

    IS(fp_model_read(NULL, model), FP_USAGE, "path is NULL");
    IS(fp_model_read(path, NULL), FP_USAGE, "model is NULL");
    IS(fp_model_read("no/such/model.onnx", model), FP_BAD_INPUT, "cannot read no/such/model.onnx: ");
    IS(fp_model_read("\xff.onnx", model), FP_BAD_INPUT, "cannot read");
    IS(fp_model_from_bytes(NULL, 5, NULL, model), FP_USAGE, "bytes is NULL");
    IS(fp_model_from_bytes(NULL, 0, NULL, model), FP_BAD_INPUT, "model.onnx is no ONNX model: the file is empty");
    IS(fp_model_from_bytes(bytes, length / 2, "half.onnx", model), FP_BAD_INPUT, "half.onnx is no ONNX model");
    IS(fp_model_from_bytes(bytes, length, NULL, NULL), FP_USAGE, "model is NULL");
    HOLDS(*model == NULL);
    IS(fp_model_from_bytes(bytes, length, NULL, &copy), FP_OK, "");
    free(bytes);
    IS(fp_model_tree(copy, &text), FP_OK, "");
    HOLDS(strstr(text, "conv1") != NULL);
    fp_string_free(text);
    fp_model_free(copy);

    IS(fp_model_read(path, model), FP_OK, "");
    IS(fp_model_tree(NULL, &text), FP_USAGE, "model is NULL");
    IS(fp_model_tree(*model, NULL), FP_USAGE, "text is NULL");
    IS(fp_model_modules(NULL, &count), FP_USAGE, "model is NULL");
    IS(fp_model_modules(*model, NULL), FP_USAGE, "count is NULL");
    IS(fp_model_modules(*model, &count), FP_OK, "");
    IS(fp_model_module(*model, count, &module, sizeof module), FP_USAGE, "there is no module");
    IS(fp_model_module(*model, FP_NONE, &module, sizeof module), FP_USAGE, "there is no module");
    IS(fp_model_module(*model, 0, NULL, sizeof module), FP_USAGE, "module is NULL");
    IS(fp_model_module(*model, 0, &module, 3), FP_USAGE, "the size of module is 3");
    IS(fp_model_module(*model, 0, &module, sizeof module), FP_OK, "");
    HOLDS(module.parent == FP_NONE && module.path[0] == '\0');
    IS(fp_model_module(*model, 1, &module, sizeof module), FP_OK, "");
    HOLDS(module.parent == 0 && module.path[0] != '\0' && module.parameters > 0);
    IS(fp_model_module_parameter(*model, 1, module.parameters, &name), FP_USAGE, "there is no parameter");
    IS(fp_model_module_parameter(*model, 1, 0, NULL), FP_USAGE, "name is NULL");
    IS(fp_model_module_parameter(*model, 1, 0, &name), FP_OK, "");
    HOLDS(strncmp(name, module.path, strlen(module.path)) == 0);
    IS(fp_model_tensors(*model, &count), FP_OK, "");
    IS(fp_model_tensor(*model, count, &tensor, sizeof tensor), FP_USAGE, "there is no tensor");
    IS(fp_model_tensor(*model, 0, &tensor, sizeof tensor), FP_OK, "");
    HOLDS(tensor.role == FP_PARAMETER && tensor.bytes == 4 * tensor.elements && tensor.module > 0);
}

static void plans(const fp_model *model, fp_plan **plan)
{
    fp_options *options = NULL;
    IS(fp_options_new(NULL), FP_USAGE, "options is NULL");
    IS(fp_options_new(&options), FP_OK, "");
    IS(fp_options_set(NULL, "unit", "leaf"), FP_USAGE, "options is NULL");
    IS(fp_options_set(options, NULL, "leaf"), FP_USAGE, "name is NULL");
    IS(fp_options_set(options, "unit", NULL), FP_USAGE, "value is NULL");
    IS(fp_options_set(options, "unit", "\xc3("), FP_USAGE, "value is not UTF-8");
    IS(fp_options_set(options, "unit", "branch"), FP_USAGE, "unit is \"branch\"");
    IS(fp_options_set(options, "freze_start", "0.25"), FP_OK, "");
    IS(fp_plan_make(model, 10, options, plan), FP_USAGE, "freze_start");
    HOLDS(strstr(fp_last_hint(), "freeze_level") != NULL);
    fp_options_free(options);
    IS(fp_options_new(&options), FP_OK, "");
    IS(fp_options_set(options, "freeze_start", "0.25"), FP_OK, "");
    IS(fp_plan_make(NULL, 10, options, plan), FP_USAGE, "model is NULL");
    IS(fp_plan_make(model, 10, options, NULL), FP_USAGE, "plan is NULL");
    IS(fp_plan_make(model, 0, options, plan), FP_USAGE, "epochs is 0");
    HOLDS(*plan == NULL);
    IS(fp_plan_make(model, 10, NULL, plan), FP_OK, "");
    fp_plan_free(*plan);
    IS(fp_plan_make(model, 10, options, plan), FP_OK, "");
    fp_options_free(options);
}

static void reading(const fp_plan *plan, const char *path)
{
    const char *name, *same;
    char *json, *again;
    size_t count = 0;
    bool frozen = false;
    double scale = 0;
    fp_plan *copy = NULL;
    fp_summary summary;
    struct { fp_unit unit; char later[8]; } grown;
    fp_epoch epoch;

    IS(fp_plan_epochs(plan, &count), FP_OK, "");
    HOLDS(count == 10);
    IS(fp_plan_epoch(plan, 0, &epoch, sizeof epoch), FP_USAGE, "epoch is 0, expected 1 to 10");
    IS(fp_plan_epoch(plan, 11, &epoch, sizeof epoch), FP_USAGE, "epoch is 11, expected 1 to 10");
    IS(fp_plan_epoch(plan, 10, &epoch, 0), FP_USAGE, "the size of out is 0");
    IS(fp_plan_epoch(plan, 10, &epoch, sizeof epoch), FP_OK, "");
    HOLDS(epoch.frozen_units == 10 && epoch.changes == 0 && epoch.step_cost < 1);
    IS(fp_plan_frozen(plan, 10, epoch.frozen, &name), FP_USAGE, "there is no frozen parameter");
    IS(fp_plan_frozen(plan, 10, 0, NULL), FP_USAGE, "name is NULL");
    IS(fp_plan_frozen(NULL, 10, 0, &name), FP_USAGE, "plan is NULL");
    IS(fp_plan_frozen(plan, 10, 0, &name), FP_OK, "");
    IS(fp_plan_statistic(plan, 10, 0, &same), FP_USAGE, "there is no statistic");
    IS(fp_plan_dropout_off(plan, 10, 0, &same), FP_USAGE, "there is no Dropout output");
    IS(fp_plan_change(plan, 10, 0, &count), FP_USAGE, "there is no change");
    IS(fp_plan_is_frozen(plan, 10, name, &frozen), FP_OK, "");
    HOLDS(frozen);
    IS(fp_plan_is_frozen_at(plan, 1, 99, name, &frozen), FP_OK, "");
    HOLDS(!frozen);
    IS(fp_plan_epoch_at(plan, 11, 5, &epoch, sizeof epoch), FP_USAGE, "epoch is 11, expected 1 to 10");
    IS(fp_plan_epoch_at(plan, 10, 5, NULL, sizeof epoch), FP_USAGE, "out is NULL");
    IS(fp_plan_epoch_at(NULL, 10, 5, &epoch, sizeof epoch), FP_USAGE, "plan is NULL");
    IS(fp_plan_epoch_at(plan, 10, 5, &epoch, sizeof epoch), FP_OK, "");
    HOLDS(epoch.frozen_units == 10);
    IS(fp_plan_frozen_at(plan, 10, 5, epoch.frozen, &name), FP_USAGE, "there is no frozen parameter");
    IS(fp_plan_frozen_at(plan, 10, 5, 0, &same), FP_OK, "");
    HOLDS(strcmp(name, same) == 0);
    IS(fp_plan_statistic_at(plan, 10, 5, 0, &same), FP_USAGE, "there is no statistic");
    IS(fp_plan_dropout_off_at(NULL, 10, 5, 0, &same), FP_USAGE, "plan is NULL");
    IS(fp_plan_lr_scale_at(plan, 10, 5, "conv1", &scale), FP_USAGE, "no parameter");
    IS(fp_plan_lr_scale_at(plan, 10, 5, name, &scale), FP_OK, "");
    HOLDS(scale == 1);
    IS(fp_plan_is_frozen(plan, 10, "conv1.wait", &frozen), FP_USAGE, "the plan has no parameter \"conv1.wait\"");
    HOLDS(strstr(fp_last_hint(), "conv1.weight") != NULL);
    IS(fp_plan_is_frozen(plan, 10, "conv1", &frozen), FP_USAGE, "no parameter");
    IS(fp_plan_is_frozen(plan, 10, NULL, &frozen), FP_USAGE, "name is NULL");
    IS(fp_plan_lr_scale(plan, 10, name, &scale), FP_OK, "");
    HOLDS(scale == 1);
    IS(fp_plan_units(plan, &count), FP_OK, "");
    HOLDS(count == 13);
    IS(fp_plan_unit(plan, count, &grown.unit, sizeof grown), FP_USAGE, "there is no unit 13, there are 13");
    memset(&grown, 1, sizeof grown);
    IS(fp_plan_unit(plan, 0, &grown.unit, sizeof grown), FP_OK, "");
    HOLDS(grown.later[0] == 0 && grown.unit.parameters > 0 && grown.unit.weight_grad_flops > 0);
    IS(fp_plan_unit_parameter(plan, 0, 0, &same), FP_OK, "");
    HOLDS(strcmp(name, same) == 0);
    IS(fp_plan_unit_parameter(plan, 0, grown.unit.parameters, &same), FP_USAGE, "there is no parameter");
    IS(fp_plan_summary(plan, &summary, sizeof summary), FP_OK, "");
    HOLDS(summary.cost_ratio < 1 && summary.pays && summary.verdict[0] != '\0');
    IS(fp_plan_note(plan, summary.notes, &same), FP_USAGE, "there is no note");

    IS(fp_plan_to_json(plan, NULL), FP_USAGE, "json is NULL");
    IS(fp_plan_to_json(plan, &json), FP_OK, "");
    IS(fp_plan_from_json(NULL, &copy), FP_USAGE, "json is NULL");
    IS(fp_plan_from_json("{", &copy), FP_BAD_INPUT, "ends too early");
    IS(fp_plan_from_json("{\"format\": \"freeze-plan/9\"}", &copy), FP_BAD_INPUT, "freeze-plan/9");
    IS(fp_plan_read("no/such.json", &copy), FP_BAD_INPUT, "cannot read no/such.json");
    IS(fp_plan_read(path, &copy), FP_BAD_INPUT, "no plan is attached to ");
    HOLDS(copy == NULL);
    IS(fp_plan_from_json(json, &copy), FP_OK, "");
    IS(fp_plan_to_json(copy, &again), FP_OK, "");
    HOLDS(strcmp(json, again) == 0 && strstr(json, "\"sha256\": \"\"") == NULL);
    fp_string_free(json);
    fp_string_free(again);
    fp_plan_free(copy);
}

int main(int count, char **arguments)
{
    fp_model *model = NULL;
    fp_plan *plan = NULL;
    if (count != 2)
        return 2;
    HOLDS(fp_last_error()[0] == '\0' && fp_last_hint()[0] == '\0');
    models(arguments[1], &model);
    plans(model, &plan);
    IS(fp_plan_check(NULL, model), FP_USAGE, "plan is NULL");
    IS(fp_plan_check(plan, NULL), FP_USAGE, "model is NULL");
    IS(fp_plan_check(plan, model), FP_OK, "");
    fp_model_free(model);
    reading(plan, arguments[1]);
    fp_plan_free(plan);
    fp_model_free(NULL);
    fp_options_free(NULL);
    fp_plan_free(NULL);
    fp_string_free(NULL);
    if (!wrong)
        printf("as expected\n");
    return wrong;
}
