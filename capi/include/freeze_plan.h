/* freeze-plan: which layers of an ONNX model freeze in which epoch.
 *
 * A plan is made of a model, with options, or read from a file. examples/plan.c shows most of it.
 *
 * Results. Functions return a status, and write what they return through their last pointer only when they
 * return FP_OK. What went wrong is told by fp_last_error(), what to do by fp_last_hint(), both for the
 * calling thread. Nothing unwinds into the caller.
 *
 * Pointers. Each must be NULL or valid; NULL where something is needed is FP_USAGE. A handle is valid from
 * the call that made it until its _free function; freeing NULL does nothing. Texts are UTF-8 and end with
 * NUL; paths are bytes on Unix. A `const char *` that comes back belongs to the handle that it was asked of
 * and lives as long as that; a `char *` is freed with fp_string_free(). What is passed in is not kept: it
 * may be freed after the call.
 *
 * Structs. They may grow at their end in later versions, so their size is passed: sizeof of the struct. A
 * library newer than the header writes what the header knows, an older one zeros for the rest.
 *
 * Threads. Any function may be called by several threads at a time. Models and plans never change and may be
 * shared; options may be shared while nobody sets one; a handle is freed when no thread uses it any more.
 * A call takes less than 512 kB of stack.
 *
 * Numbers. Epochs count from 1, indices from 0. A multiply-add is two flops. Fractions lie in [0, 1].
 */


#ifndef FREEZE_PLAN_H
#define FREEZE_PLAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

// No module.
#define FP_NONE SIZE_MAX

// How a call ended; the numbers are the exit codes of the program freeze-plan. Later versions may return
// others.
typedef enum {
  // Done.
  FP_OK = 0,
  // A file or bytes that were given are wrong.
  FP_BAD_INPUT = 1,
  // The call is wrong: a NULL pointer, an index out of range, an option that does not exist.
  FP_USAGE = 2,
  // The model holds something that is not supported.
  FP_UNSUPPORTED = 3,
  // A check on results failed.
  FP_CHECK = 4,
  // A defect of this library, which was caught. The handles that were passed may be read and freed.
  FP_PANIC = 70,
} fp_status;

// What a tensor is to training.
typedef enum {
  // A parameter, which gradients update.
  FP_PARAMETER = 0,
  // A running statistic, which forward passes update.
  FP_STATISTIC = 1,
  // A buffer, which nothing updates.
  FP_BUFFER = 2,
} fp_role;

// A model that was read and analysed. Threads may share it; it must not be freed while one uses it.
typedef struct fp_model fp_model;

// Options of a plan. One thread at a time may change them.
typedef struct fp_options fp_options;

// A plan. Threads may share it; it must not be freed while one uses it.
typedef struct fp_plan fp_plan;

// A module of a model.
typedef struct {
  // Path from the root, such as "layer1.0.conv1"; that of the root is "".
  const char *path;
  // Class, or the operator that reads its first parameter; "" where there is none.
  const char *class_name;
  // Index of the module that holds it; FP_NONE for the root.
  size_t parent;
  // Parameters that it holds itself.
  size_t parameters;
} fp_module;

// A tensor that the file holds.
typedef struct {
  // Name of the initializer.
  const char *name;
  // What it is to training.
  fp_role role;
  // Elements.
  uint64_t elements;
  // Bytes of its values.
  uint64_t bytes;
  // Index of the module that holds it; FP_NONE where none does.
  size_t module;
} fp_tensor;

// A plan as a whole. Costs are those of flops, relative to a run with nothing frozen.
typedef struct {
  // Mean cost of a step.
  double cost_ratio;
  // The largest speedup this can give.
  double ceiling;
  // As cost_ratio, when the output of what is frozen comes from a cache.
  double cached_cost_ratio;
  // As ceiling, with that cache.
  double cached_ceiling;
  // What the plan can save at most, or why it cannot pay, in one sentence.
  const char *verdict;
  // Sentences for a person, which fp_plan_note() returns.
  size_t notes;
  // Whether it saves 2 % or more.
  bool pays;
} fp_summary;

// What a plan says of an epoch, at its start or after some of its steps: what is frozen, and what a step is then
// predicted to cost. The functions that are named list it at the start; those with _at after as many steps.
typedef struct {
  // Frozen parameters, which fp_plan_frozen() names.
  size_t frozen;
  // Units of which every parameter is frozen.
  size_t frozen_units;
  // Running statistics that stay, which fp_plan_statistic() names.
  size_t statistics;
  // Dropout nodes that pass their input on, of which fp_plan_dropout_off() names the outputs.
  size_t dropout_off;
  // Changes of what is frozen within the epoch, which fp_plan_change() places.
  size_t changes;
  // The schedule's value in [0, 1].
  double fraction;
  // Flops of a step relative to one with nothing frozen.
  double step_cost;
  // The same, when the output of what was frozen already in the epoch before comes from a cache.
  double cached_step_cost;
  // Flops of the forward pass of a step.
  uint64_t forward_flops;
  // Flops of the backward pass of a step.
  uint64_t backward_flops;
  // Bytes of gradients and optimizer slots.
  uint64_t state_bytes;
  // Bytes that the forward pass makes and the backward pass reads.
  uint64_t activation_bytes;
} fp_epoch;

// What a policy freezes as one, and what it costs while it trains.
typedef struct {
  // Module path, such as "layer1.0.conv1".
  const char *path;
  // Class of the module, or operator.
  const char *class_name;
  // Parameters of the unit.
  size_t parameters;
  // Elements of those.
  uint64_t elements;
  // Flops of a step for the forward pass.
  uint64_t forward_flops;
  // Flops of a step for gradients with respect to data.
  uint64_t input_grad_flops;
  // Flops of a step for gradients with respect to parameters.
  uint64_t weight_grad_flops;
  // Bytes of gradients and optimizer slots.
  uint64_t state_bytes;
} fp_unit;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// Returns the version of the library, such as "0.1.0". It is never freed.
const char *fp_version(void);

// Returns what went wrong in the last call of this thread that failed, in one line; "" before the first.
// Valid until the next call of this thread that fails. Calls that succeed leave it as it is.
const char *fp_last_error(void);

// Returns what to do about fp_last_error(), in one line; "" where that is not known. Valid as long as that.
const char *fp_last_hint(void);

// Frees a text that a function of this library gave to the caller to free. NULL is left alone.
void fp_string_free(char *text);

// Reads a model. The path is that of an ONNX file, or of ONNX Runtime's training artifacts: their folder or
// one of their files. Weights are mapped: the files must not change while the model or a plan that was made
// of it lives. fp_model_free() frees the model.
fp_status fp_model_read(const char *path,
                        fp_model **model);

// Reads a model from the bytes of an ONNX file, which are copied. The path stands in messages and in plans,
// and data outside of the file are looked for in its folder; NULL stands for "model.onnx". fp_model_free()
// frees the model.
fp_status fp_model_from_bytes(const uint8_t *bytes,
                              size_t length,
                              const char *path,
                              fp_model **model);

// Counts the modules. They stand in registration order, each before those that it holds; index 0 is the
// root.
fp_status fp_model_modules(const fp_model *model,
                           size_t *count);

// Returns a module; size is sizeof *module. Its texts live as long as the model.
fp_status fp_model_module(const fp_model *model, size_t index, fp_module *module, size_t size);

// Returns the name of a parameter that a module holds itself. It lives as long as the model.
fp_status fp_model_module_parameter(const fp_model *model,
                                    size_t module,
                                    size_t index,
                                    const char **name);

// Counts the parameters, running statistics and buffers, which stand in file order. Constants without a name
// of their author's are left out.
fp_status fp_model_tensors(const fp_model *model,
                           size_t *count);

// Returns a tensor; size is sizeof *tensor. Its name lives as long as the model.
fp_status fp_model_tensor(const fp_model *model, size_t index, fp_tensor *tensor, size_t size);

// Returns the modules with their parameters as a text for a person. fp_string_free() frees it.
fp_status fp_model_tree(const fp_model *model, char **text);

// Frees a model. Plans that were made of it stay. NULL is left alone.
void fp_model_free(fp_model *model);

// Makes options with every value at its default. fp_options_free() frees them.
fp_status fp_options_new(fp_options **options);

// Sets an option by the name that it has in the table freeze of a job file, to a value as on the command
// line:
//
// - policy: its name; "linear" by default
// - freeze_start and the other settings of the policy: a number, a word, or JSON
// - unit: "leaf", "composer", "block" or "parameter"
// - freeze, keep: a pattern; each call adds one
// - parameter, buffer: a pattern for what trains, and for what never does; each call adds one
// - batch_norm: "train" or "frozen"
// - dropout: "train" or "off"
// - batch: the batch size that costs are counted for; 1 by default
// - shape: the shape of an input, as "x=1,3,224,224"; each call adds one
// - steps_per_epoch: for policies that act within an epoch; not known by default
// - slots: tensors that the optimizer keeps for each parameter; by default those of the training step in
//   the file, else 1
//
// and on_return, warm_up_steps, rollback, prefix, which a run reads from the plan. Whether the policy has
// such a setting, and whether a pattern matches anything, is checked by fp_plan_make(). A call that fails
// changes nothing.
fp_status fp_options_set(fp_options *options,
                         const char *name,
                         const char *value);

// Frees options. NULL is left alone.
void fp_options_free(fp_options *options);

// Plans a run of a model over some epochs. Options may be NULL, which is the linear policy with its
// defaults. The plan stays when the model is freed. fp_plan_free() frees the plan.
fp_status fp_plan_make(const fp_model *model,
                       size_t epochs,
                       const fp_options *options,
                       fp_plan **plan);

// Reads a plan: a plan file, a model to which one is attached, or the folder of a run. fp_plan_free() frees the
// plan.
fp_status fp_plan_read(const char *path,
                       fp_plan **plan);

// Reads the text of a plan file. fp_plan_free() frees the plan.
fp_status fp_plan_from_json(const char *json, fp_plan **plan);

// Returns the text of the plan file, as freeze-plan --format json writes it. The first call for a plan that
// was made of a model reads the whole model for its digest. fp_string_free() frees the text.
fp_status fp_plan_to_json(const fp_plan *plan,
                          char **json);

// Checks that a plan is for a model: that the model holds the parameters of the plan, of the same sizes. It is
// FP_BAD_INPUT where it does not. The values do not matter, so the trained model passes too.
fp_status fp_plan_check(const fp_plan *plan,
                        const fp_model *model);

// Returns the plan as a whole; size is sizeof *summary. Its text lives as long as the plan.
fp_status fp_plan_summary(const fp_plan *plan, fp_summary *summary, size_t size);

// Returns a sentence for a person, of those that fp_summary counts. It lives as long as the plan.
fp_status fp_plan_note(const fp_plan *plan, size_t index, const char **note);

// Frees a plan. NULL is left alone.
void fp_plan_free(fp_plan *plan);

// Counts the epochs. Those that other functions take count from 1.
fp_status fp_plan_epochs(const fp_plan *plan, size_t *count);

// Returns what the plan says of an epoch at its start; size is sizeof *out.
fp_status fp_plan_epoch(const fp_plan *plan, size_t epoch, fp_epoch *out, size_t size);

// Returns what the plan says of an epoch after some steps of it; size is sizeof *out. The number of changes is
// that of the whole epoch.
fp_status fp_plan_epoch_at(const fp_plan *plan,
                           size_t epoch,
                           size_t after,
                           fp_epoch *out,
                           size_t size);

// Returns the name of a parameter that is frozen at the start of an epoch, in the order of the units. It
// lives as long as the plan.
fp_status fp_plan_frozen(const fp_plan *plan,
                         size_t epoch,
                         size_t index,
                         const char **name);

// Returns the name of a parameter that is frozen after some steps of an epoch, in the order of the units. It
// lives as long as the plan.
fp_status fp_plan_frozen_at(const fp_plan *plan,
                            size_t epoch,
                            size_t after,
                            size_t index,
                            const char **name);

// Returns the name of a running statistic that stays in an epoch and is used in place of that of the batch.
// It lives as long as the plan.
fp_status fp_plan_statistic(const fp_plan *plan,
                            size_t epoch,
                            size_t index,
                            const char **name);

// Returns the name of a running statistic that stays after some steps of an epoch. It lives as long as the plan.
fp_status fp_plan_statistic_at(const fp_plan *plan,
                               size_t epoch,
                               size_t after,
                               size_t index,
                               const char **name);

// Returns the name of the output of a Dropout node that passes its input on in an epoch. It lives as long as
// the plan.
fp_status fp_plan_dropout_off(const fp_plan *plan,
                              size_t epoch,
                              size_t index,
                              const char **name);

// Returns the name of the output of a Dropout node that passes its input on after some steps of an epoch. It
// lives as long as the plan.
fp_status fp_plan_dropout_off_at(const fp_plan *plan,
                                 size_t epoch,
                                 size_t after,
                                 size_t index,
                                 const char **name);

// Returns after how many steps of an epoch what is frozen changes for the time of that index, from 0.
fp_status fp_plan_change(const fp_plan *plan,
                         size_t epoch,
                         size_t index,
                         size_t *after);

// Tells whether a parameter is frozen at the start of an epoch. A name that no unit has is an error.
fp_status fp_plan_is_frozen(const fp_plan *plan,
                            size_t epoch,
                            const char *name,
                            bool *frozen);

// Tells whether a parameter is frozen after some steps of an epoch. A name that no unit has is an error.
fp_status fp_plan_is_frozen_at(const fp_plan *plan,
                               size_t epoch,
                               size_t after,
                               const char *name,
                               bool *frozen);

// Returns the factor on the learning rate of a parameter at the start of an epoch; 1 for most policies.
fp_status fp_plan_lr_scale(const fp_plan *plan,
                           size_t epoch,
                           const char *name,
                           double *scale);

// Returns the factor on the learning rate of a parameter after some steps of an epoch: that which holds from the
// last change on. A policy that anneals changes it with each step, which no plan lists.
fp_status fp_plan_lr_scale_at(const fp_plan *plan,
                              size_t epoch,
                              size_t after,
                              const char *name,
                              double *scale);

// Counts the units, which stand from the input side.
fp_status fp_plan_units(const fp_plan *plan, size_t *count);

// Returns a unit; size is sizeof *unit. Its texts live as long as the plan.
fp_status fp_plan_unit(const fp_plan *plan, size_t index, fp_unit *unit, size_t size);

// Returns the name of a parameter of a unit. It lives as long as the plan.
fp_status fp_plan_unit_parameter(const fp_plan *plan, size_t unit, size_t index, const char **name);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* FREEZE_PLAN_H */
