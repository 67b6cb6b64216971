// swift-tools-version:6.2
import PackageDescription

/// `WEIR_PLANE=sidecar` leaves out everything that needs SwiftNIO, `WEIR_PLANE=store` everything
/// but the common modules and the control plane's storage, and `WEIR_PLANE=control` the sidecar:
/// quick loops for work on one plane, because a first build of the control plane's dependencies
/// takes minutes.
///
/// `WEIR_PLANE=ledger` is the ledger and its simulation alone, for release builds of it: only there
/// can faults be planted (`PlantedFault`).
let plane = Context.environment["WEIR_PLANE"] ?? "all"
let buildsSidecar = plane == "all" || plane == "sidecar"
let buildsStore = plane == "all" || plane == "store" || plane == "control"
let buildsAll = plane == "all" || plane == "control"

/// `WEIR_FUZZ=1` (`scripts/fuzz`) builds `weir-fuzz` in place of the tests of `Tests/Fuzz`, with
/// coverage and address checks in every module that it reaches.
let isFuzzing = Context.environment["WEIR_FUZZ"] == "1"
let fuzzFlags = ["-sanitize=fuzzer,address", "-Xcc", "-fsanitize=address"]

let swiftSettings: [SwiftSetting] =
    [
        .enableUpcomingFeature("ExistentialAny"),
        .enableUpcomingFeature("MemberImportVisibility"),
        .enableUpcomingFeature("NonisolatedNonsendingByDefault"),
        .enableUpcomingFeature("InferIsolatedConformances"),
        .treatAllWarnings(as: .error),
    ] + (plane == "ledger" ? [.define("WEIR_PLANTED_FAULTS")] : [])
    + (isFuzzing ? [.unsafeFlags(fuzzFlags + ["-enable-testing"])] : [])

func module(
    _ name: String, _ path: String, sources: [String]? = nil, dependencies: [Target.Dependency] = []
) -> Target {
    .target(
        name: name, dependencies: dependencies, path: path, sources: sources,
        swiftSettings: swiftSettings)
}

func tests(
    _ name: String, _ path: String, exclude: [String] = [], dependencies: [Target.Dependency]
) -> Target {
    .testTarget(
        name: name, dependencies: dependencies, path: path, exclude: exclude,
        swiftSettings: swiftSettings)
}

var products: [Product] = []
var dependencies: [Package.Dependency] = []

// Common: what both planes must agree on.
var targets: [Target] = [
    module("WeirCore", "Sources/Common/Core"),
    module("WeirPolicy", "Sources/Common/Policy", dependencies: ["WeirCore"]),
    module("WeirLedger", "Sources/Common/Ledger", dependencies: ["WeirCore"]),
    module(
        "WeirMeshProtocol", "Sources/Common/MeshProtocol",
        dependencies: ["WeirCore", "WeirPolicy", "WeirLedger"]),

    .target(
        name: "CLinux", path: "Sources/Common/System/CLinux",
        cSettings: isFuzzing ? [.unsafeFlags(["-fsanitize=fuzzer-no-link,address"])] : []),
    .systemLibrary(
        name: "COpenSSL", path: "Sources/Common/System/COpenSSL", pkgConfig: "openssl",
        providers: [.apt(["libssl-dev"])]),
    .systemLibrary(
        name: "CNghttp2", path: "Sources/Common/System/CNghttp2", pkgConfig: "libnghttp2",
        providers: [.apt(["libnghttp2-dev"])]),
    .systemLibrary(
        name: "CHiredis", path: "Sources/Common/System/CHiredis", pkgConfig: "hiredis",
        providers: [.apt(["libhiredis-dev"])]),
    .systemLibrary(
        name: "CSQLite", path: "Sources/Common/System/CSQLite", pkgConfig: "sqlite3",
        providers: [.apt(["libsqlite3-dev"])]),
    .systemLibrary(
        name: "CPQ", path: "Sources/Common/System/CPQ", pkgConfig: "libpq",
        providers: [.apt(["libpq-dev"])]),
    module(
        "WeirCrypto", "Sources/Common/System/Crypto",
        dependencies: ["COpenSSL", "CLinux", "WeirCore"]),

    tests("WeirCoreTests", "Tests/Common/Core", dependencies: ["WeirCore"]),
    tests("WeirPolicyTests", "Tests/Common/Policy", dependencies: ["WeirPolicy", "WeirCore"]),
    tests("WeirLedgerTests", "Tests/Common/Ledger", dependencies: ["WeirLedger", "WeirCore"]),
    tests(
        "WeirMeshProtocolTests", "Tests/Common/MeshProtocol",
        dependencies: ["WeirMeshProtocol", "WeirCore", "WeirPolicy", "WeirLedger", "WeirCrypto"]),
    tests("WeirCryptoTests", "Tests/Common/System", dependencies: ["WeirCrypto", "WeirCore"]),
    tests("TidyTests", "Tests/Tidy", dependencies: []),

    module("LedgerSimulation", "Tests/Simulation/Model", dependencies: ["WeirLedger", "WeirCore"]),
    .executableTarget(
        name: "LedgerSimulator", dependencies: ["LedgerSimulation", "WeirLedger"],
        path: "Tests/Simulation/Main", swiftSettings: swiftSettings),
    tests(
        "SimulationTests", "Tests/Simulation/Tests",
        dependencies: ["LedgerSimulation"]),
]

if buildsSidecar {
    products.append(.executable(name: "weir-sidecar", targets: ["SidecarMain"]))
    targets += [
        // The hot path is one module, because calls across modules are inlined only conservatively.
        .target(
            name: "SidecarCore",
            dependencies: [
                "WeirCore", "WeirPolicy", "WeirLedger", "WeirMeshProtocol", "WeirCrypto", "CLinux",
                "CNghttp2", "COpenSSL",
            ],
            path: "Sources/Sidecar",
            sources: [
                "Engine", "TLS", "HTTP1", "HTTP2", "Proxy", "Admission", "Metering",
                "Journal", "Balancing", "Observability",
            ],
            // Exclusivity is checked in debug builds, which all tests are. In a release it costs
            // 6,200 of 28,000 instructions a request (callgrind), because connections are classes.
            swiftSettings: swiftSettings + [
                .unsafeFlags(
                    ["-enforce-exclusivity=unchecked"], .when(configuration: .release))
            ]),
        module(
            "SidecarUplink", "Sources/Sidecar/Uplink",
            dependencies: [
                "SidecarCore", "WeirCore", "WeirPolicy", "WeirLedger", "WeirMeshProtocol",
                "WeirCrypto",
            ]),
        module(
            "SidecarGateway", "Sources/Sidecar/Gateway",
            dependencies: [
                "SidecarCore", "WeirCore", "WeirPolicy", "WeirLedger", "WeirMeshProtocol",
                "WeirCrypto",
            ]),
        // Everything of the program but its entry, so that tests can reach it.
        module(
            "SidecarWiring", "Sources/Sidecar/Main", sources: ["Options", "Wiring"],
            dependencies: [
                "SidecarCore", "SidecarUplink", "SidecarGateway", "WeirCore", "WeirPolicy",
                "WeirLedger", "WeirMeshProtocol", "WeirCrypto", "CLinux",
            ]),
        .executableTarget(
            name: "SidecarMain", dependencies: ["SidecarWiring"], path: "Sources/Sidecar/Main",
            sources: ["WeirSidecar.swift"], swiftSettings: swiftSettings,
            // The sidecar runs in images without a Swift runtime.
            linkerSettings: [.unsafeFlags(["-static-stdlib"])]),
        .executableTarget(
            name: "DataPlaneBenchmark", dependencies: ["SidecarCore"],
            path: "Benchmarks/DataPlane", swiftSettings: swiftSettings,
            linkerSettings: [.unsafeFlags(["-static-stdlib"])]),
        tests(
            "SidecarTests", "Tests/Sidecar",
            dependencies: [
                "SidecarCore", "SidecarUplink", "SidecarGateway", "SidecarWiring", "WeirCore",
                "WeirPolicy", "WeirLedger", "WeirMeshProtocol", "WeirCrypto", "CLinux",
                "CNghttp2", "COpenSSL",
            ]),
    ]
    let fuzzed: [Target.Dependency] = [
        "SidecarCore", "WeirCore", "WeirPolicy", "WeirLedger", "WeirMeshProtocol",
    ]
    if isFuzzing {
        products.append(.executable(name: "weir-fuzz", targets: ["Fuzz"]))
        targets.append(
            .executableTarget(
                name: "Fuzz", dependencies: fuzzed, path: "Tests/Fuzz",
                exclude: ["Corpus", "CorpusTests.swift"], swiftSettings: swiftSettings,
                linkerSettings: [.unsafeFlags(["-sanitize=fuzzer,address", "-use-ld=lld"])]))
    } else {
        targets.append(
            tests(
                "FuzzTests", "Tests/Fuzz", exclude: ["Corpus", "Main"], dependencies: fuzzed))
    }
}

if buildsStore {
    targets += [
        // What the control plane keeps and how: no SwiftNIO, so that it builds and tests quickly.
        module(
            "ControlPlaneStore", "Sources/ControlPlane",
            sources: ["Redis", "Ledger", "Archive", "Policy", "Identity"],
            dependencies: [
                "WeirCore", "WeirPolicy", "WeirLedger", "WeirMeshProtocol", "WeirCrypto",
                "CHiredis", "COpenSSL", "CSQLite", "CPQ", "CLinux",
            ]),
        // A real PostgreSQL server of a test's own.
        module("PrivatePostgreSQL", "Tests/PrivatePostgreSQL"),
        tests(
            "ControlPlaneStoreTests", "Tests/ControlPlane/Store",
            dependencies: [
                "ControlPlaneStore", "WeirCore", "WeirPolicy", "WeirLedger", "WeirMeshProtocol",
                "WeirCrypto", "PrivatePostgreSQL",
            ]),
    ]
}

if buildsAll {
    dependencies += [
        .package(url: "https://github.com/hummingbird-project/hummingbird", from: "2.28.0"),
        .package(url: "https://github.com/swift-server/async-http-client", from: "1.30.0"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", from: "2.8.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-log", from: "1.6.0"),
        .package(url: "https://github.com/apple/swift-nio", from: "2.83.0"),
        .package(url: "https://github.com/apple/swift-nio-http2", from: "1.38.0"),
        .package(url: "https://github.com/apple/swift-nio-extras", from: "1.28.0"),
        .package(url: "https://github.com/apple/swift-http-types", from: "1.4.0"),
        .package(url: "https://github.com/jpsim/Yams", from: "6.0.0"),
    ]
    products += [
        .executable(name: "weir-control-plane", targets: ["ControlPlaneMain"]),
        .executable(name: "weir", targets: ["WeirCLI"]),
        .executable(name: "weir-sample-agents", targets: ["SampleAgents"]),
    ]
    let hummingbird: [Target.Dependency] = [
        .product(name: "Hummingbird", package: "hummingbird"),
        .product(name: "HummingbirdCore", package: "hummingbird"),
        .product(name: "HummingbirdHTTP2", package: "hummingbird"),
        .product(name: "Logging", package: "swift-log"),
        .product(name: "ServiceLifecycle", package: "swift-service-lifecycle"),
        .product(name: "UnixSignals", package: "swift-service-lifecycle"),
        .product(name: "HTTPTypes", package: "swift-http-types"),
        .product(name: "NIOCore", package: "swift-nio"),
        .product(name: "NIOPosix", package: "swift-nio"),
    ]
    let common: [Target.Dependency] = [
        "WeirCore", "WeirPolicy", "WeirLedger", "WeirMeshProtocol", "WeirCrypto",
    ]
    let arguments: Target.Dependency = .product(
        name: "ArgumentParser", package: "swift-argument-parser")
    let httpClient: Target.Dependency = .product(
        name: "AsyncHTTPClient", package: "async-http-client")
    let yams: Target.Dependency = .product(name: "Yams", package: "Yams")
    targets += [
        // The server and the CLI read the same YAML.
        module("WeirYAML", "Sources/ControlPlane/YAML", dependencies: [yams, "WeirCore"]),
        .target(
            name: "ControlPlaneServer",
            dependencies: ["ControlPlaneStore", "WeirYAML"] + common + hummingbird,
            path: "Sources/ControlPlane", sources: ["API", "Push"],
            resources: [.embedInCode("OpenAPI/openapi.yaml")], swiftSettings: swiftSettings),
        .executableTarget(
            name: "ControlPlaneMain",
            dependencies: ["ControlPlaneServer", "ControlPlaneStore", arguments]
                + common + hummingbird,
            path: "Sources/ControlPlane/Main", swiftSettings: swiftSettings),
        .executableTarget(
            name: "WeirCLI",
            dependencies: [
                arguments, httpClient, "WeirYAML",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOPosix", package: "swift-nio"),
            ] + common,
            path: "Sources/ControlPlane/CLI", swiftSettings: swiftSettings),
        .executableTarget(
            name: "SampleAgents", dependencies: [arguments] + hummingbird,
            path: "Tests/SampleAgents", swiftSettings: swiftSettings),
        tests(
            "ControlPlaneServerTests", "Tests/ControlPlane/Server",
            dependencies: [
                "ControlPlaneServer", "ControlPlaneStore", "WeirYAML", "WeirCLI", arguments,
                httpClient, "PrivatePostgreSQL",
                .product(name: "NIOHTTP1", package: "swift-nio"),
                .product(name: "NIOHTTP2", package: "swift-nio-http2"),
                .product(name: "NIOHTTPTypes", package: "swift-nio-extras"),
                .product(name: "NIOHTTPTypesHTTP2", package: "swift-nio-extras"),
            ] + common + hummingbird),
        tests(
            "SampleAgentsTests", "Tests/SampleAgentsTests", dependencies: ["SampleAgents"]),
        // Starts the programs by path. It must not depend on SidecarMain, whose linker flags would
        // link the tests against the static runtime, too.
        tests(
            "IntegrationTests", "Tests/Integration",
            dependencies: [
                httpClient, "WeirCore", "WeirMeshProtocol", "WeirCrypto", "PrivatePostgreSQL",
                .product(name: "NIOCore", package: "swift-nio"),
                .product(name: "NIOHTTP1", package: "swift-nio"),
            ]),
    ]
}

if plane == "ledger" {
    let parts = [
        "WeirCore", "WeirLedger", "LedgerSimulation", "LedgerSimulator",
    ]
    targets.removeAll { !parts.contains($0.name) }
}

let package = Package(
    name: "weir", products: products, dependencies: dependencies, targets: targets,
    swiftLanguageModes: [.v6])
