import Testing
import WeirCore

@testable import WeirPolicy

@Suite struct PromptTemplateTests {
    @Test(arguments: [
        ("plain", "plain"),
        ("{{a}}", "A"),
        ("x {{ a }} y {{a}}", "x A y A"),
        ("one {{a}}\ntwo {{missing}}\nthree", "one A\nthree"),
        ("{{list}}", "[1,2]"),
        ("{{a", "{{a"),
        ("{a}", "{a}"),
        ("}}{{a}}", "}}A"),
        ("{{{a}}}", ""),
        ("", ""),
    ])
    func renders(template: String, expected: String) {
        let text = PromptTemplate.render(template, inputs: ["a": "A", "list": [1, 2]])
        #expect(text == expected)
    }

    /// What a user writes is never a template.
    @Test func inputsAreNotRenderedAgain() {
        let text = PromptTemplate.render("{{a}}", inputs: ["a": "{{secret}}", "secret": "s"])
        #expect(text == "{{secret}}")
    }

    @Test func namesItsPlaceholders() {
        let template = PromptTemplate(system: "be {{mood}}", user: "{{ text }}\n{{tags}}")
        #expect(template.placeholders == ["mood", "text", "tags"])
    }
}
