/// Answers as providers give them, shortened, in the form of each API.
enum RecordedAnswers {
    static let anthropicStream = #"""
        event: message_start
        data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant\#
        ","model":"claude-sonnet-4-5-20250929","content":[],"stop_reason":null,"usage":{"input_t\#
        okens":25,"cache_creation_input_tokens":40,"cache_read_input_tokens":300,"cache_creation\#
        ":{"ephemeral_5m_input_tokens":40,"ephemeral_1h_input_tokens":0},"output_tokens":1,"serv\#
        ice_tier":"standard"}}}

        event: content_block_start
        data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

        event: ping
        data: {"type": "ping"}

        event: content_block_delta
        data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\"usa\#
        ge\":{\"output_tokens\":9}"}}

        event: content_block_stop
        data: {"type":"content_block_stop","index":0}

        event: message_delta
        data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"u\#
        sage":{"output_tokens":15}}

        event: message_stop
        data: {"type":"message_stop"}


        """#

    static let anthropicMessage = #"""
        {"id":"msg_1","type":"message","role":"assistant","model":"claude-sonnet-4-5-20250929",
         "content":[{"type":"text","text":"Hello"}],"stop_reason":"end_turn","stop_sequence":null,
         "usage":{"input_tokens":25,"cache_creation_input_tokens":40,
          "cache_read_input_tokens":300,"output_tokens":15}}
        """#

    static let chatStream = #"""
        data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o-2024-08-06"\#
        ,"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],\#
        "usage":null}

        data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o-2024-08-06"\#
        ,"choices":[{"index":0,"delta":{"content":"\u0022usage\u0022: {}"},"finish_reason":null}\#
        ],"usage":null}

        data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o-2024-08-06"\#
        ,"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}

        data: {"id":"c","object":"chat.completion.chunk","created":1,"model":"gpt-4o-2024-08-06"\#
        ,"choices":[],"usage":{"prompt_tokens":1200,"completion_tokens":34,"total_tokens":1234,"\#
        prompt_tokens_details":{"cached_tokens":1024,"audio_tokens":0},"completion_tokens_detail\#
        s":{"reasoning_tokens":20,"audio_tokens":0}}}

        data: [DONE]


        """#

    static let responsesStream = #"""
        event: response.created
        data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1","object":\#
        "response","status":"in_progress","error":null,"model":"o3-2025-04-16","output":[],"usag\#
        e":null}}

        event: response.output_text.delta
        data: {"type":"response.output_text.delta","item_id":"m","output_index":0,"content_index\#
        ":0,"delta":"Hi"}

        event: response.completed
        data: {"type":"response.completed","sequence_number":9,"response":{"id":"resp_1","object\#
        ":"response","status":"completed","error":null,"model":"o3-2025-04-16","output":[{"type"\#
        :"message","content":[{"type":"output_text","text":"Hi"}]}],"usage":{"input_tokens":1200\#
        ,"input_tokens_details":{"cached_tokens":1024},"output_tokens":34,"output_tokens_details\#
        ":{"reasoning_tokens":20},"total_tokens":1234}}}


        """#

    static let embeddings = #"""
        {"object":"list","data":[{"object":"embedding","index":0,"embedding":[0.1,-2e-3]}],
         "model":"text-embedding-3-small","usage":{"prompt_tokens":8,"total_tokens":8}}
        """#
}
