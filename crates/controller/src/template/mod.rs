//! Go's `text/template` with Sprig's text functions, as much as templates of storage providers use.
//!
//! What differs on purpose: a key that is missing reads as an empty value everywhere, never as `<no value>`; functions
//! that look outside (environment, time, network, random numbers) do not exist, for a template has to give the same text
//! each time.

mod eval;
mod funcs;
mod lex;
mod numbers;
mod parse;
mod sprig;

use serde_json::Value;

/// Why a template gives no text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct TemplateError {
    /// Line of the template, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

/// Renders `text` with `data` as its dot.
///
/// # Errors
/// The first thing in the template that cannot be understood or carried out.
pub fn render(text: &str, data: &Value) -> Result<String, TemplateError> {
    let (nodes, defined) = parse::parse(lex::lex(text)?)?;
    eval::eval(&nodes, &defined, data)
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::render;

    // What Go's text/template with Sprig prints for the same input, apart from missing keys.
    #[rstest]
    #[case::field("{{ .a }}", "1")]
    #[case::nested("{{ .m.k }}", "v")]
    #[case::index(r#"{{ index .m "k" }}"#, "v")]
    #[case::index_of_list("{{ index .l 1 }}", "y")]
    #[case::missing_field("[{{ .none }}]", "[]")]
    #[case::missing_below_missing("[{{ .none.deeper }}]", "[]")]
    #[case::missing_index(r#"[{{ index .m "none" }}]"#, "[]")]
    #[case::missing_in_printf(r#"{{ printf "<%s>" .m.none }}"#, "<>")]
    #[case::missing_equals_empty(r#"{{ if eq .none "" }}y{{ end }}"#, "y")]
    #[case::default_of_missing(r#"{{ .none | default "d" }}"#, "d")]
    #[case::default_of_empty(r#"{{ default "d" .empty }}"#, "d")]
    #[case::default_of_given(r#"{{ .m.k | default "d" }}"#, "v")]
    #[case::trim_left("a \n{{- .a }} b", "a1 b")]
    #[case::trim_right("a {{ .a -}} \n b", "a 1b")]
    #[case::trim_around_control("x\n{{- if .a }}\ny\n{{- end }}\nz", "x\ny\nz")]
    #[case::comment("a{{/* no }} */}}b", "ab")]
    #[case::comment_trims("a {{- /* no */ -}} b", "ab")]
    #[case::if_else("{{ if .empty }}1{{ else }}2{{ end }}", "2")]
    #[case::else_if("{{ if .empty }}1{{ else if .a }}2{{ else }}3{{ end }}", "2")]
    #[case::truth_of_zero("{{ if .zero }}1{{ else }}0{{ end }}", "0")]
    #[case::variable(r"{{ $x := .a }}{{ $x }}", "1")]
    #[case::variable_is_scoped("{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ end }}{{ $x }}", "1")]
    #[case::assignment("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ end }}{{ $x }}", "2")]
    #[case::variable_with_field("{{ $m := .m }}{{ $m.k }}", "v")]
    #[case::root_inside_with("{{ with .m }}{{ .k }}{{ $.a }}{{ end }}", "v1")]
    #[case::with_else("{{ with .empty }}1{{ else }}2{{ end }}", "2")]
    #[case::range("{{ range .l }}<{{ . }}>{{ end }}", "<x><y>")]
    #[case::range_with_index("{{ range $i, $v := .l }}{{ $i }}{{ $v }}{{ end }}", "0x1y")]
    #[case::range_over_map_is_sorted("{{ range $k, $v := .big }}{{ $k }}{{ $v }}{{ end }}", "a2b1")]
    #[case::range_else("{{ range .empty }}1{{ else }}2{{ end }}", "2")]
    #[case::range_break("{{ range .l }}{{ . }}{{ break }}{{ end }}", "x")]
    #[case::range_continue(r#"{{ range .l }}{{ if eq . "x" }}{{ continue }}{{ end }}{{ . }}{{ end }}"#, "y")]
    #[case::pipeline(r#"{{ .m.k | upper | printf "%s-%s" "a" }}"#, "a-V")]
    #[case::parentheses(r#"{{ if and (eq .a 1) (ne .m.k "w") }}y{{ end }}"#, "y")]
    #[case::field_of_parentheses("{{ (index .deep 0).k }}", "w")]
    #[case::and_stops_early("{{ and .empty (fail `never`) }}", "")]
    #[case::or_gives_the_value(r#"{{ or .empty .m.k "z" }}"#, "v")]
    #[case::not("{{ not .empty }}", "true")]
    #[case::raw_string("{{ `a\"b` }}", "a\"b")]
    #[case::escapes(r#"{{ "a\tb\u00e9\"" }}"#, "a\tb\u{e9}\"")]
    #[case::braces_in_a_string(r#"{{ "}}" }}"#, "}}")]
    #[case::printf_verbs(
        r#"{{ printf "%05d|%-4s|%4s|%q|%v|%%|%.2f|%x" 42 "a" "b" "c" true 1.5 255 }}"#,
        "00042|a   |   b|\"c\"|true|%|1.50|ff"
    )]
    #[case::print_of_list("{{ .l }}", "[x y]")]
    #[case::compare("{{ lt 1 2 }}{{ ge 2 2 }}{{ gt `b` `a` }}{{ eq 1 2 3 1 }}", "truetruetruetrue")]
    #[case::len("{{ len .l }}{{ len .m.k }}", "21")]
    #[case::split_list(r#"{{ splitList "," "a,b" | join "+" }}"#, "a+b")]
    #[case::split_list_of_missing(r#"{{ splitList " " .none | toJson }}"#, r#"[""]"#)]
    #[case::has_prefix(r#"{{ hasPrefix "cn-" "cn-north-1" }}"#, "true")]
    #[case::to_json("{{ .m | toJson }}", r#"{"k":"v"}"#)]
    #[case::to_json_of_text(r"{{ .m.k | toJson }}", r#""v""#)]
    #[case::to_json_is_safe_in_html(r#"{{ "<&>" | toJson }}"#, r#""\u003c\u0026\u003e""#)]
    #[case::quote(r#"{{ quote "a" 1 }}{{ squote "b" }}"#, r#""a" "1"'b'"#)]
    #[case::base64(r#"{{ "pass" | b64enc }}{{ "cGFzcw==" | b64dec }}"#, "cGFzcw==pass")]
    #[case::ternary(r#"{{ ternary "a" "b" true }}{{ false | ternary "a" "b" }}"#, "ab")]
    #[case::trims(
        r#"{{ trim " a " }}{{ trimAll "/" "/b/" }}{{ trimPrefix "x" "xc" }}{{ trimSuffix "/" "d/" }}"#,
        "abcd"
    )]
    #[case::replace(r#"{{ "a-b" | replace "-" "_" }}"#, "a_b")]
    #[case::indent(r#"{{ "a\nb" | indent 2 }}{{ "c" | nindent 1 }}"#, "  a\n  b\n c")]
    #[case::arithmetic(r#"{{ add 1 "2" 3 }}{{ sub 5 2 }}{{ mul 2 3 }}{{ div 7 2 }}{{ mod 7 2 }}"#, "63631")]
    #[case::int_of_text(r#"{{ if eq (int "0") 0 }}y{{ end }}"#, "y")]
    #[case::to_string(r#"{{ 1 | toString | eq "1" }}"#, "true")]
    #[case::coalesce(r#"{{ coalesce .none .empty "z" }}"#, "z")]
    #[case::dict(r#"{{ $d := dict "a" 1 }}{{ get $d "a" }}{{ hasKey $d "b" }}"#, "1false")]
    #[case::nil("{{ if eq .none nil }}y{{ end }}", "y")]
    #[case::define_and_template(
        "{{ define `pair` }}{{ .k }}={{ $.k }}{{ end }}[{{ template `pair` .m }}]{{ template `pair` }}",
        "[v=v]="
    )]
    #[case::define_after_use("{{ template `late` . }}{{ define `late` }}{{ .a }}{{ end }}", "1")]
    #[case::block("<{{ block `b` .m }}{{ .k }}{{ end }}>", "<v>")]
    #[case::template_has_its_own_variables(
        "{{ $x := 1 }}{{ define `t` }}{{ $x := 2 }}{{ $x }}{{ end }}{{ template `t` }}{{ $x }}",
        "21"
    )]
    #[case::else_with("{{ with .empty }}1{{ else with .m }}{{ .k }}{{ else }}3{{ end }}", "v")]
    #[case::range_over_a_number("{{ range $i := 3 }}{{ $i }}{{ end }}", "012")]
    #[case::regex(r#"{{ regexMatch "^cn-" "cn-1" }}{{ regexReplaceAll "a(x*)b" "-ab-axxb-" "${1}W" }}"#, "true-W-xxW-")]
    #[case::regex_find(
        r#"{{ regexFind "[0-9]+" "a12b3" }}{{ regexFindAll "[0-9]" "a12b3" -1 | join "," }}"#,
        "121,2,3"
    )]
    #[case::regex_split(r#"{{ regexSplit "z+" "pizza" -1 | join "|" }}"#, "pi|a")]
    #[case::splitn(r#"{{ (splitn "$" 2 "foo$bar$baz")._1 }}"#, "bar$baz")]
    #[case::url(r#"{{ $u := urlParse "https://me:pw@s3.example:9000/b?x=1" }}{{ $u.scheme }} {{ $u.host }} {{ $u.hostname }} {{ $u.path }} {{ $u.query }}"#, "https s3.example:9000 s3.example /b x=1")]
    #[case::kinds(r#"{{ kindOf .m }} {{ kindIs "string" .empty }} {{ kindOf 1.5 }}"#, "map true float64")]
    #[case::digest(r#"{{ sha256sum "a" | trunc 8 }}"#, "ca978112")]
    #[case::cases(
        r#"{{ camelcase "http_server" }} {{ kebabcase "HttpServer" }} {{ snakecase "first-name" }}"#,
        "HttpServer http-server first_name"
    )]
    #[case::must(r#"{{ mustToJson .m }}{{ mustRegexMatch "v" "v" }}"#, r#"{"k":"v"}true"#)]
    #[case::list_parts(
        "{{ slice .l 1 }}{{ until 3 }}{{ untilStep 3 6 2 }}{{ chunk 1 .l }}",
        "[y][0 1 2][3 5][[x] [y]]"
    )]
    #[case::map_parts(
        r#"{{ pick .big "a" }}{{ omit .big "a" }}{{ set .m "z" 1 }}{{ dig "x" "y" "none" .m }}{{ pluck "k" .m | first }}"#,
        "map[a:2]map[b:1]map[k:v z:1]nonev"
    )]
    #[case::set_changes_the_variable(
        r#"{{ $d := dict }}{{ $_ := set $d "a" 1 }}{{ $_ = unset $d "b" }}{{ $d }}"#,
        "map[a:1]"
    )]
    #[case::merge(
        r#"{{ merge (dict "a" 1) (dict "a" 2 "b" 3) }}{{ mergeOverwrite (dict "a" 1) (dict "a" 2) }}"#,
        "map[a:1 b:3]map[a:2]"
    )]
    #[case::rounding("{{ ceil 1.2 }} {{ floor 1.8 }} {{ round 3.14159 2 }}", "2 1 3.14")]
    #[case::minus_is_a_number_not_a_trim("{{ -1 }}", "-1")]
    fn renders_as_go_does(#[case] template: &str, #[case] wanted: &str) {
        let data = json!({
            "a": 1, "zero": 0, "empty": "", "m": {"k": "v"}, "l": ["x", "y"], "big": {"b": 1, "a": 2},
            "deep": [{"k": "w"}],
        });
        assert_eq!(render(template, &data).as_deref(), Ok(wanted));
    }

    #[rstest]
    #[case::unknown_function("a\n{{ nope 1 }}", 2, "there is no function nope")]
    #[case::no_end("{{ if true }}", 1, "if has no end")]
    #[case::stray_end("x\n\n{{ end }}", 3, "end without")]
    #[case::not_closed("{{ .a", 1, "{{ is not closed")]
    #[case::unknown_variable("{{ $x }}", 1, "there is no variable $x")]
    #[case::fail("{{ fail `region is required` }}", 1, "region is required")]
    #[case::no_such_template("{{ template `x` }}", 1, "there is no template x")]
    #[case::a_template_in_itself(
        "{{ define `x` }}{{ template `x` . }}{{ end }}\n{{ template `x` . }}",
        1,
        "calls itself"
    )]
    #[case::a_name_that_is_no_text("{{ template 1 }}", 1, "wants a name")]
    #[case::define_inside("{{ if true }}{{ define `x` }}{{ end }}{{ end }}", 1, "not inside")]
    #[case::too_few("{{ trimPrefix `x` }}", 1, "trimPrefix wants 2 arguments")]
    fn errors_name_the_line(#[case] template: &str, #[case] line: usize, #[case] what: &str) {
        let error = render(template, &json!({})).unwrap_err();
        assert_eq!(error.line, line);
        assert!(error.what.contains(what), "{error}");
    }

    #[test]
    fn a_template_cannot_eat_the_machine() {
        assert!(render("{{ repeat 999999999 `x` }}", &json!({})).is_err());
        assert!(render("{{ `x` | indent 999999999 }}", &json!({})).is_err());
        assert!(render(r#"{{ printf "%999999999s" `x` }}"#, &json!({})).is_err());
        assert!(render(&format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000)), &json!({})).is_err());
        assert!(render(&"{{ if true }}".repeat(5000), &json!({})).is_err());
        let twice = |at: u32| {
            let next = at + 1;
            format!("{{{{ define `t{at}` }}}}{{{{ template `t{next}` }}}}{{{{ template `t{next}` }}}}{{{{ end }}}}")
        };
        let doubling = (0..31).map(twice).collect::<Vec<_>>().concat();
        let error =
            render(&format!("{doubling}{{{{ define `t31` }}}}{{{{ end }}}}{{{{ template `t0` }}}}"), &json!({}))
                .unwrap_err();
        assert!(error.what.contains("too many"), "{error}");
        assert!(render("{{ until 999999999 }}", &json!({})).is_err());
        assert!(render("{{ untilStep 9223372036854775807 -9223372036854775807 -1 }}", &json!({})).is_err());
        assert!(render("{{ range $i := 999999999 }}x{{ end }}", &json!({})).is_err());
    }
}
