import WeirCore

/// One setting of the program: where it may come from and what it is for. The table of them is the
/// only place that knows names; `--help`, the parser and the messages all read it.
struct Option: Hashable, Sendable {
    enum Kind: Hashable, Sendable {
        /// Takes a value; the text names it in the help ("ADDR").
        case value(String)
        case flag
        /// From the environment only, or from a file named there by `…_FILE`: arguments can be
        /// seen by everybody on the machine.
        case secret
    }

    /// The name in a configuration file, and behind `--` on the command line.
    var name: String
    /// `nil`: not on the command line.
    var hasArgument = true
    var environment: String?
    var kind: Kind
    var fallback: String?
    var help: String

    static func value(
        _ name: String, _ placeholder: String, environment: String? = nil, fallback: String? = nil,
        _ help: String
    ) -> Option {
        Option(
            name: name, environment: environment, kind: .value(placeholder), fallback: fallback,
            help: help)
    }

    static func flag(_ name: String, _ help: String) -> Option {
        Option(name: name, environment: nil, kind: .flag, fallback: nil, help: help)
    }

    /// A setting without a flag, because its name is fixed by what others expect.
    static func variable(
        _ name: String, _ environment: String, fallback: String? = nil, _ help: String
    ) -> Option {
        Option(
            name: name, hasArgument: false, environment: environment, kind: .value("TEXT"),
            fallback: fallback, help: help)
    }

    static func secret(_ name: String, _ environment: String, _ help: String) -> Option {
        Option(
            name: name, hasArgument: false, environment: environment, kind: .secret, fallback: nil,
            help: help)
    }
}

/// One wrong setting: named as the user gave it.
struct OptionProblem: Error, Hashable, Sendable, CustomStringConvertible {
    var option: String
    var message: String
    var description: String { "\(option): \(message)" }
}

struct OptionProblems: Error, Hashable, Sendable {
    var list: [OptionProblem]
}

/// What every setting is, and where that was said. Precedence: flag, environment, file, default.
struct OptionValues: Sendable {
    struct Value: Hashable, Sendable {
        var text: String
        /// As the user knows it: "--listen", "WEIR_LISTEN", "config.json: listen", "the default".
        var origin: String
    }

    private(set) var values: [String: Value] = [:]
    /// The files that secrets came from, by the name of their option.
    private(set) var secretFiles: [String: String] = [:]
    let table: [Option]

    subscript(name: String) -> Value? { values[name] }

    init(
        table: [Option], arguments: [String], environment: [String: String],
        readFile: (String) throws(OptionProblem) -> [UInt8]
    ) throws(OptionProblems) {
        self.table = table
        var problems: [OptionProblem] = []
        let flags = Self.parse(arguments, table, &problems)
        let file = Self.parseFile(
            flags["config"]?.text ?? environment["WEIR_CONFIG"], table, readFile, &problems)
        for option in table {
            let fallback = option.fallback.map { Value(text: $0, origin: "the default") }
            values[option.name] =
                flags[option.name]
                ?? Self.fromEnvironment(option, environment, readFile, &problems)
                ?? file[option.name] ?? fallback
            if let name = option.environment, let path = environment[name + "_FILE"],
                values[option.name]?.origin == name + "_FILE"
            {
                secretFiles[option.name] = path
            }
        }
        guard problems.isEmpty else { throw OptionProblems(list: problems) }
    }

    // MARK: Command line

    private static func parse(
        _ arguments: [String], _ table: [Option], _ problems: inout [OptionProblem]
    ) -> [String: Value] {
        var found: [String: Value] = [:]
        var rest = arguments[...]
        while let argument = rest.popFirst() {
            let parts = argument.split(
                separator: "=", maxSplits: 1, omittingEmptySubsequences: false)
            let flag = String(parts.first ?? "")
            guard let option = table.first(where: { $0.hasArgument && "--" + $0.name == flag })
            else {
                problems.append(OptionProblem(option: argument, message: "there is no such option"))
                continue
            }
            var text: String?
            if case .flag = option.kind {
                if parts.count == 2 {
                    problems.append(OptionProblem(option: flag, message: "takes no value"))
                }
                text = "true"
            } else {
                text = parts.count == 2 ? String(parts[1]) : nil
                // The next option is no value: `--data --listen …` forgot one.
                if parts.count == 1, rest.first?.hasPrefix("--") == false { text = rest.popFirst() }
            }
            guard let text, !text.isEmpty else {
                problems.append(OptionProblem(option: flag, message: "a value is missing"))
                continue
            }
            if found.updateValue(Value(text: text, origin: flag), forKey: option.name) != nil {
                problems.append(OptionProblem(option: flag, message: "is given twice"))
            }
        }
        return found
    }

    // MARK: Environment

    private static func fromEnvironment(
        _ option: Option, _ environment: [String: String],
        _ readFile: (String) throws(OptionProblem) -> [UInt8], _ problems: inout [OptionProblem]
    ) -> Value? {
        guard let name = option.environment else { return nil }
        if let text = environment[name], !text.isEmpty { return Value(text: text, origin: name) }
        guard case .secret = option.kind, let path = environment[name + "_FILE"], !path.isEmpty
        else { return nil }
        do throws(OptionProblem) {
            return Value(text: SecretText.text(of: try readFile(path)), origin: name + "_FILE")
        } catch {
            problems.append(OptionProblem(option: name + "_FILE", message: error.message))
            return nil
        }
    }

    // MARK: File

    /// A JSON object with the names of the options; numbers and booleans may be written as such.
    private static func parseFile(
        _ path: String?, _ table: [Option],
        _ readFile: (String) throws(OptionProblem) -> [UInt8], _ problems: inout [OptionProblem]
    ) -> [String: Value] {
        guard let path else { return [:] }
        do {
            guard let object = try JSON.parse(try readFile(path)).object else {
                throw OptionProblem(option: path, message: "a JSON object is needed")
            }
            var found: [String: Value] = [:]
            for (key, value) in object.members {
                let origin = "\(path): \(key)"
                guard let option = table.first(where: { $0.name == key }), option.kind != .secret,
                    key != "config"
                else {
                    problems.append(
                        OptionProblem(option: origin, message: "there is no such setting here"))
                    continue
                }
                let text = value.string ?? value.text
                if !text.isEmpty { found[option.name] = Value(text: text, origin: origin) }
            }
            return found
        } catch let problem as OptionProblem {
            problems.append(OptionProblem(option: path, message: problem.message))
        } catch {
            problems.append(OptionProblem(option: path, message: "\(error)"))
        }
        return [:]
    }

    // MARK: Help

    static func help(_ table: [Option], usage: [String]) -> String {
        var lines = usage + ["", "Options (flag, environment variable, default):"]
        for option in table where option.hasArgument {
            var left = "  --" + option.name
            if case .value(let placeholder) = option.kind { left += " " + placeholder }
            var notes: [String] = []
            if let environment = option.environment { notes.append(environment) }
            if let fallback = option.fallback { notes.append("default " + fallback) }
            lines += describe(left, option.help, notes)
        }
        lines += ["", "Environment only (…_FILE names a file where it is a secret):"]
        for option in table where !option.hasArgument {
            let notes = option.fallback.map { ["default " + $0] } ?? []
            lines += describe("  " + (option.environment ?? option.name), option.help, notes)
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private static func describe(_ left: String, _ help: String, _ notes: [String]) -> [String] {
        let column = 30
        let text = help + (notes.isEmpty ? "" : " [" + notes.joined(separator: ", ") + "]")
        guard left.count < column - 1 else {
            return [left, String(repeating: " ", count: column) + text]
        }
        return [left + String(repeating: " ", count: column - left.count) + text]
    }
}
