/* Plans ten epochs of a model and prints what is frozen in each of them:
 *
 *     plan MODEL [OPTION=VALUE ..]
 */
#include "freeze_plan.h"

#include <stdio.h>
#include <string.h>

#define EPOCHS 10

/* Says why the last call failed. */
static int failed(const char *what, fp_status status)
{
    fprintf(stderr, "%s: error %d: %s\n", what, (int)status, fp_last_error());
    if (fp_last_hint()[0] != '\0')
        fprintf(stderr, "hint: %s\n", fp_last_hint());
    return (int)status;
}

static fp_status set(fp_options *options, const char *argument)
{
    char name[64];
    const char *value = strchr(argument, '=');
    size_t length = value ? (size_t)(value - argument) : strlen(argument);
    if (length >= sizeof name)
        length = sizeof name - 1;
    memcpy(name, argument, length);
    name[length] = '\0';
    return fp_options_set(options, name, value ? value + 1 : "");
}

static fp_status show(const fp_plan *plan)
{
    fp_summary summary;
    fp_status status = fp_plan_summary(plan, &summary, sizeof summary);
    size_t epochs = 0, epoch, index;
    if (status == FP_OK)
        status = fp_plan_epochs(plan, &epochs);
    for (epoch = 1; status == FP_OK && epoch <= epochs; epoch++) {
        fp_epoch found;
        status = fp_plan_epoch(plan, epoch, &found, sizeof found);
        if (status != FP_OK)
            break;
        printf("epoch %lu, step cost %.3f:", (unsigned long)epoch, found.step_cost);
        for (index = 0; status == FP_OK && index < found.frozen; index++) {
            const char *name;
            status = fp_plan_frozen(plan, epoch, index, &name);
            if (status == FP_OK)
                printf(" %s", name);
        }
        printf("\n");
    }
    if (status == FP_OK)
        printf("%s\n", summary.verdict);
    return status;
}

int main(int count, char **arguments)
{
    fp_model *model = NULL;
    fp_options *options = NULL;
    fp_plan *plan = NULL;
    bool frozen;
    fp_status status;
    int code = 0, argument;

    if (count < 2) {
        fprintf(stderr, "usage: %s MODEL [OPTION=VALUE ..]\n", arguments[0]);
        return FP_USAGE;
    }
    printf("freeze-plan %s\n", fp_version());
    status = fp_model_read(arguments[1], &model);
    if (status == FP_OK)
        status = fp_options_new(&options);
    for (argument = 2; status == FP_OK && argument < count; argument++)
        status = set(options, arguments[argument]);
    if (status == FP_OK)
        status = fp_plan_make(model, EPOCHS, options, &plan);
    fp_model_free(model);
    fp_options_free(options);
    if (status == FP_OK)
        status = show(plan);
    if (status != FP_OK)
        code = failed(arguments[1], status);
    else if ((status = fp_plan_is_frozen(plan, 1, "no.such.weight", &frozen)) != FP_OK)
        printf("an error, for once: %d: %s\n", (int)status, fp_last_error());
    fp_plan_free(plan);
    return code;
}
