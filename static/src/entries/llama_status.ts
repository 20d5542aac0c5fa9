/** The browser module `useLlamaStatus`, for pages of other people. */

export * from "../llama_status";
