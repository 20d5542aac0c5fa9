// The stock `openai` package of npm against the door at DOOR_URL: one thing after the other; the last line says how each went, as JSON.
import assert from "node:assert/strict";
import OpenAI from "openai";

const { DOOR_URL, DOOR_KEY, DOOR_BRACE } = process.env;
const QUESTION = "What is the capital of France?";
const ANSWER = "The capital of France is Paris.";
const PATIENCE_MS = 30_000;
const messages = [{ role: "user", content: QUESTION }];
const cities = { type: "string", enum: ["Paris", "Rome"] };
const tools = [
  { type: "function", function: { name: "get_weather", parameters: { type: "object", properties: { city: cities }, required: ["city"] } } },
];
const schema = {
  type: "object",
  properties: { city: cities, sunny: { type: "boolean" } },
  required: ["city", "sunny"],
  additionalProperties: false,
};

const connect = (options) => new OpenAI({ baseURL: `${DOOR_URL}/v1`, apiKey: DOOR_KEY, maxRetries: 0, ...options });
const client = connect();
const ask = (body, options) => client.chat.completions.create({ model: "demo", messages, temperature: 0, ...body }, options);

async function untilIdle(instance) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    const answer = await fetch(`${DOOR_URL}/admin/instances/${instance}`, { headers: { Authorization: `Bearer ${DOOR_KEY}` } });
    if ((await answer.json()).requestsActive === 0) return;
    assert.ok(Date.now() < deadline, `${instance} is still at work`);
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const checks = {
  async models() {
    const ids = [];
    for await (const model of client.models.list()) ids.push(model.id);
    assert.ok(ids.includes("demo"));
    assert.equal((await client.models.retrieve("demo")).object, "model");
  },

  async chat() {
    const { data, response, request_id } = await ask({}).withResponse();
    assert.equal(data.choices[0].message.content, ANSWER);
    assert.ok(data.usage.completion_tokens > 0);
    assert.equal(request_id, response.headers.get("x-request-id"));
  },

  async stream_with_usage() {
    let text = "", usage;
    for await (const chunk of await ask({ stream: true, stream_options: { include_usage: true } })) {
      text += chunk.choices[0]?.delta.content ?? "";
      usage = chunk.usage ?? usage;
    }
    assert.equal(text, ANSWER);
    assert.equal(usage.completion_tokens, (await ask({})).usage.completion_tokens);
    const helper = client.chat.completions.stream({ model: "demo", messages, temperature: 0 });
    assert.equal(await helper.finalContent(), ANSWER);
  },

  async tool_call_round_trip() {
    const forced = { tools, tool_choice: "required", parallel_tool_calls: false, logit_bias: { [DOOR_BRACE]: 100 }, max_tokens: 1_000 };
    const { finish_reason, message } = (await ask(forced)).choices[0];
    assert.equal(finish_reason, "tool_calls");
    const [call] = message.tool_calls;
    assert.equal(call.function.name, "get_weather");
    assert.ok(cities.enum.includes(JSON.parse(call.function.arguments).city));
    const streamed = await client.chat.completions.stream({ model: "demo", messages, temperature: 0, ...forced }).finalMessage();
    assert.deepEqual(streamed.tool_calls[0].function.name, "get_weather");
    const result = { role: "tool", tool_call_id: call.id, content: "Sunny." };
    const last = await ask({ messages: [...messages, message, result], tools, tool_choice: "none", max_tokens: 20 });
    assert.ok(last.choices[0].message.content);
  },

  async json_schema() {
    const response_format = { type: "json_schema", json_schema: { name: "weather", strict: true, schema } };
    const answer = await client.chat.completions.parse({ model: "demo", messages, temperature: 0, max_tokens: 1_000, response_format });
    assert.deepEqual(Object.keys(JSON.parse(answer.choices[0].message.content)).sort(), ["city", "sunny"]);
  },

  async errors() {
    await assert.rejects(ask({ temperature: 9 }), (error) => {
      assert.ok(error instanceof OpenAI.BadRequestError);
      assert.deepEqual([error.param, error.code], ["temperature", "invalid_request"]);
      return true;
    });
    const stranger = connect({ apiKey: "wrong" });
    await assert.rejects(stranger.models.list(), OpenAI.AuthenticationError);
    await assert.rejects(ask({ model: "demmo" }), (error) => error instanceof OpenAI.NotFoundError && /Did you mean `demo`/.test(error.message));
    await assert.rejects(ask({ model: "crowded" }), OpenAI.RateLimitError);
    await assert.rejects(ask({ model: "off" }), (error) => error instanceof OpenAI.InternalServerError && error.status === 503);
  },

  async cancel() {
    const controller = new AbortController();
    const leave = async () => {
      for await (const _ of await ask({ model: "endless", stream: true }, { signal: controller.signal })) controller.abort();
    };
    // An iteration that was aborted ends, or throws, as the release of the package has it.
    await leave().catch((error) => assert.ok(error instanceof OpenAI.APIUserAbortError));
    await untilIdle("endless");
    for await (const _ of await ask({ model: "endless", stream: true })) break;
    await untilIdle("endless");
  },

  async timeout() {
    await assert.rejects(ask({ model: "mute" }, { timeout: 500 }), OpenAI.APIConnectionTimeoutError);
    await untilIdle("mute");
  },
};

const told = {};
for (const [name, check] of Object.entries(checks)) {
  told[name] = await check().then(() => "ok", (error) => error.stack);
}
console.log(JSON.stringify(told));
