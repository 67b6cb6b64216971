/// A server and a client of gRPC for tests, both of the `grpcio` package: other people's reading of
/// the protocol. Messages are plain bytes, so that no code has to be generated.
enum GRPCPeers {
    static let package = PythonTool(
        name: "grpcio", requirement: "grpcio==1.85.1", hasProgram: false)

    /// Serves `/test.Echo/…` on the port of its argument, with TLS where a certificate and a key
    /// follow, and says on its output what it sees.
    static let server = """
        import sys, threading
        from concurrent import futures
        import grpc

        def log(*words):
            print(*words, flush=True)

        def unary(request, context):
            metadata = dict(context.invocation_metadata())
            left = context.time_remaining()
            if "x-deadline" in metadata:
                log("the deadline is %.1f s" % (left if left is not None else -1))
            context.send_initial_metadata((("x-initial", "seen"),))
            context.set_trailing_metadata((("x-trailing", metadata.get("x-asked", "-")),))
            return request.upper()

        def fail(request, context):
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: 100% sure")

        def unavailable(request, context):
            context.abort(grpc.StatusCode.UNAVAILABLE, "down")

        def slow(request, context):
            gone = threading.Event()
            context.add_callback(gone.set)
            log("slow began")
            if gone.wait(30):
                log("slow cancelled")
            return b""

        def server_stream(request, context):
            for number in range(int(request)):
                yield b"%d" % number

        def endless(request, context):
            gone = threading.Event()
            context.add_callback(gone.set)
            number = 0
            while not gone.is_set():
                yield b"x" * 1000
                number += 1
                if number == 3:
                    log("endless began")
            log("endless cancelled")

        def client_stream(requests, context):
            return b",".join(requests)

        def bidi(requests, context):
            for request in requests:
                yield request[::-1]

        KINDS = {
            "Unary": (grpc.unary_unary_rpc_method_handler, unary),
            "Fail": (grpc.unary_unary_rpc_method_handler, fail),
            "Unavailable": (grpc.unary_unary_rpc_method_handler, unavailable),
            "Slow": (grpc.unary_unary_rpc_method_handler, slow),
            "ServerStream": (grpc.unary_stream_rpc_method_handler, server_stream),
            "Endless": (grpc.unary_stream_rpc_method_handler, endless),
            "ClientStream": (grpc.stream_unary_rpc_method_handler, client_stream),
            "Bidi": (grpc.stream_stream_rpc_method_handler, bidi),
        }

        class Echo(grpc.GenericRpcHandler):
            def service(self, details):
                service, method = details.method.rsplit("/", 1)
                if service == "/test.Echo" and method in KINDS:
                    make, handler = KINDS[method]
                    return make(handler)

        server = grpc.server(futures.ThreadPoolExecutor(max_workers=64))
        server.add_generic_rpc_handlers((Echo(),))
        address = "127.0.0.1:%s" % sys.argv[1]
        if len(sys.argv) > 2:
            pair = [open(name, "rb").read() for name in (sys.argv[3], sys.argv[2])]
            port = server.add_secure_port(address, grpc.ssl_server_credentials([pair]))
        else:
            port = server.add_insecure_port(address)
        server.start()
        log("listening", port)
        server.wait_for_termination()
        """

    /// Before the lines of a test, which put what they see into `seen`. Its arguments: an address,
    /// and the authority of its certificate where it speaks TLS.
    static let clientPrelude = """
        import json, sys, time
        from concurrent import futures
        import grpc

        options = (("grpc.enable_retries", 0),)
        if len(sys.argv) > 2:
            trusted = grpc.ssl_channel_credentials(open(sys.argv[2], "rb").read())
            channel = grpc.secure_channel(sys.argv[1], trusted, options)
        else:
            channel = grpc.insecure_channel(sys.argv[1], options)
        def call(kind, name):
            return getattr(channel, kind)("/test.Echo/" + name)
        unary = call("unary_unary", "Unary")
        def failure(run):
            try:
                return {"code": "OK", "answer": str(run())}
            except grpc.RpcError as error:
                return {"code": error.code().name, "details": error.details(),
                        "metadata": dict(list(error.initial_metadata() or ())
                                         + list(error.trailing_metadata() or ()))}
        seen = {}
        """
}
