/** Which instance answers for what a person chose. Pure. */

import type { LlamaServiceStatus } from "./types";

/** One entry of the model choice; `value` is what the request names. */
export interface ModelOption {
  value: string;
  label: string;
  instance: string;
}

/** An entry for each instance (known before it is ready), and one for each model of those that serve several. */
export function modelOptions(instances: readonly LlamaServiceStatus[]): ModelOption[] {
  return instances.flatMap(({ instance, status, models }) => {
    const suffix = status === "ready" ? "" : ` (${status})`;
    const own = { value: instance, label: `${instance}${suffix}`, instance };
    if (models.length < 2) return [own];
    return [own, ...models.map(({ id, name }) => ({ value: id, label: `${instance} / ${name}${suffix}`, instance }))];
  });
}

/** The instance that answers for `value`, an instance's name or a model's id; the default one for an empty value. */
export function instanceFor(
  value: string,
  instances: readonly LlamaServiceStatus[],
  defaultName: string | null,
): LlamaServiceStatus | undefined {
  const wanted = value || defaultName;
  return (
    instances.find((each) => each.instance === wanted) ?? instances.find((each) => each.models.some((model) => model.id === wanted))
  );
}
