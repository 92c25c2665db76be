//! Bounds on the size and depth of the values that a template builds.
//!
//! The engine charges fuel for a list's own slots, not for what it contains. So a template could put a list
//! into itself twice, forty times over, and printing it would fill any memory; or nest lists until walking
//! them exhausts the stack. Therefore the source is given to the engine with a measuring filter behind every
//! expression that can build a list or map. The filter passes its value on unchanged, walks it within a
//! budget, charges fuel for the walk, and errs when the value is too large or too deep. By induction every
//! value in a template is bounded, so whatever walks one (printing, comparing, joining, dropping) is too.

use minijinja::machinery::ast;
use minijinja::value::{DynObject, Tuple, ValueKind};
use minijinja::{Error, ErrorKind, State, Value};

use crate::template::Edit;

/// The measuring filter's name. It begins like the reserved variable, which customers know not to use.
pub(crate) const FILTER: &str = "mailrail_bounded";
/// The same for values that are stored in a namespace: they must not hold a namespace, or it could hold itself.
pub(crate) const STORED_FILTER: &str = "mailrail_stored";
/// Largest value: a unit is an item, a key or 64 bytes of text.
const MAX_UNITS: u64 = 10_000;
/// Deepest nesting; a contact's custom fields may be 64 deep.
const MAX_DEPTH: u32 = 100;
/// Fuel that walking a lazy sequence costs by itself and per item. Those nest without getting longer, and
/// each item then comes through all levels.
const LAZY_FUEL: u64 = 100;
const LAZY_ITEM_FUEL: u64 = 1;
/// Units that one unit of fuel pays for.
const UNITS_PER_FUEL: u64 = 8;

/// Filters whose result is a scalar or a part of their input.
const SCALAR_FILTERS: [&str; 33] = [
    "abs",
    "attr",
    "bool",
    "capitalize",
    "count",
    "d",
    "default",
    "e",
    "escape",
    "first",
    "float",
    "format",
    "indent",
    "int",
    "join",
    "last",
    "length",
    "lower",
    "max",
    "min",
    "pprint",
    "replace",
    "round",
    "safe",
    "string",
    "sum",
    "title",
    "tojson",
    "trim",
    "upper",
    "urlencode",
    FILTER,
    STORED_FILTER,
];

/// Passes `value` on if it is within bounds.
pub(crate) fn bounded(state: &State, value: Value) -> Result<Value, Error> {
    check(state, &value)?;
    Ok(value)
}

/// Like [`bounded`], for values that go into a namespace.
pub(crate) fn stored(state: &State, value: Value) -> Result<Value, Error> {
    if value.as_object().is_some_and(is_namespace) {
        return Err(namespace_inside());
    }
    bounded(state, value)
}

/// Errs if `value` is too large or too deep, and charges for finding out.
pub(crate) fn check(state: &State, value: &Value) -> Result<(), Error> {
    if value.as_object().is_none() {
        return Ok(());
    }
    let mut walk = Walk::default();
    let walked = walk.enter(value, 0);
    state.consume_fuel(walk.units / UNITS_PER_FUEL + walk.lazy_fuel)?;
    walked
}

#[derive(Default)]
struct Walk {
    units: u64,
    lazy_fuel: u64,
}

impl Walk {
    fn enter(&mut self, value: &Value, depth: u32) -> Result<(), Error> {
        self.units += 1 + value.as_str().map_or(0, |text| text.len() as u64 / 64);
        if self.units > MAX_UNITS {
            return Err(Error::new(ErrorKind::InvalidOperation, "a list or map is too large"));
        }
        let Some(object) = value.as_object() else { return Ok(()) };
        if depth >= MAX_DEPTH {
            let reason = format!("values are nested more than {MAX_DEPTH} deep");
            return Err(Error::new(ErrorKind::InvalidOperation, reason));
        }
        if depth > 0 && is_namespace(object) {
            return Err(namespace_inside());
        }
        match value.kind() {
            ValueKind::Map => {
                for (key, item) in object.try_iter_pairs().into_iter().flatten() {
                    self.enter(&key, depth + 1)?;
                    self.enter(&item, depth + 1)?;
                }
            }
            ValueKind::Seq | ValueKind::Iterable => {
                let item_fuel = if is_stored(object) {
                    0
                } else {
                    self.lazy_fuel += LAZY_FUEL;
                    LAZY_ITEM_FUEL
                };
                for item in object.try_iter().into_iter().flatten() {
                    self.lazy_fuel += item_fuel;
                    self.enter(&item, depth + 1)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// Whether a sequence holds its items, rather than fetching them from another.
fn is_stored(object: &DynObject) -> bool {
    object.downcast_ref::<Vec<Value>>().is_some() || object.downcast_ref::<Tuple>().is_some()
}

/// The engine's type is private, its name is not.
fn is_namespace(object: &DynObject) -> bool {
    object.type_name().ends_with("::Namespace")
}

fn namespace_inside() -> Error {
    Error::new(ErrorKind::InvalidOperation, "a namespace cannot be put into another value")
}

/// The insertions that put the measuring filter into `source`, whose syntax tree is `tree`. None of them
/// touches static text or adds a line.
pub(crate) fn measurements(tree: &ast::Stmt<'_>, source: &str) -> Vec<Edit> {
    let mut places = Places { source, edits: Vec::new() };
    places.statement(tree);
    places.edits
}

struct Places<'s> {
    source: &'s str,
    edits: Vec<Edit>,
}

impl Places<'_> {
    fn insert(&mut self, at: usize, text: &str) {
        self.edits.push(Edit { bytes: at..at, with: text.to_owned() });
    }

    fn around(&mut self, start: usize, end: usize) {
        self.insert(start, "((");
        self.insert(end, &format!(")|{FILTER})"));
    }

    fn behind(&mut self, end: usize) {
        self.insert(end, &format!("|{FILTER}"));
    }

    fn statements(&mut self, statements: &[ast::Stmt<'_>]) {
        statements.iter().for_each(|statement| self.statement(statement));
    }

    fn statement(&mut self, statement: &ast::Stmt<'_>) {
        match statement {
            ast::Stmt::Template(template) => self.statements(&template.children),
            ast::Stmt::EmitExpr(emit) => self.expression(&emit.expr),
            ast::Stmt::EmitRaw(_) | ast::Stmt::Continue(_) | ast::Stmt::Break(_) => {}
            ast::Stmt::ForLoop(node) => {
                self.expression(&node.iter);
                self.optional(node.filter_expr.as_ref());
                self.statements(&node.body);
                self.statements(&node.else_body);
            }
            ast::Stmt::IfCond(node) => {
                self.expression(&node.expr);
                self.statements(&node.true_body);
                self.statements(&node.false_body);
            }
            ast::Stmt::WithBlock(node) => {
                node.assignments.iter().for_each(|(_, expression)| self.expression(expression));
                self.statements(&node.body);
            }
            ast::Stmt::Set(node) => self.set(node, node.span().start_offset as usize, node.span().end_offset as usize),
            ast::Stmt::SetBlock(node) => {
                self.optional(node.filter.as_ref());
                self.statements(&node.body);
            }
            ast::Stmt::AutoEscape(node) => {
                self.expression(&node.enabled);
                self.statements(&node.body);
            }
            ast::Stmt::FilterBlock(node) => {
                self.expression(&node.filter);
                self.statements(&node.body);
            }
            ast::Stmt::Macro(node) => self.macro_declaration(node),
            ast::Stmt::CallBlock(node) => {
                self.call(&node.call);
                self.macro_declaration(&node.macro_decl);
            }
            ast::Stmt::Do(node) => self.call(&node.call),
        }
    }

    fn macro_declaration(&mut self, node: &ast::Macro<'_>) {
        node.defaults.iter().for_each(|default| self.expression(default));
        self.statements(&node.body);
    }

    /// `set` needs the filter around its whole right side: a tuple there may lack parentheses.
    fn set(&mut self, node: &ast::Set<'_>, start: usize, end: usize) {
        match &node.expr {
            ast::Expr::Tuple(tuple) => tuple.items.iter().for_each(|item| self.expression(item)),
            other => self.expression(other),
        }
        let into_namespace = matches!(node.target, ast::Expr::GetAttr(_));
        let harmless = matches!(node.expr, ast::Expr::Var(_) | ast::Expr::Const(_) | ast::Expr::GetAttr(_));
        if !into_namespace && harmless {
            return;
        }
        // The left side is made of names, dots, commas and parentheses, so the first `=` is the operator.
        let Some(equals) = self.source.get(start..end).and_then(|text| text.find('=')) else { return };
        self.insert(start + equals + 1, "(");
        self.insert(end, &format!(")|{}", if into_namespace { STORED_FILTER } else { FILTER }));
    }

    fn optional(&mut self, expression: Option<&ast::Expr<'_>>) {
        if let Some(expression) = expression {
            self.expression(expression);
        }
    }

    fn expression(&mut self, expression: &ast::Expr<'_>) {
        // Constants are as long as their source.
        if expression.as_const().is_some() {
            return;
        }
        let (start, end) = (expression.span().start_offset as usize, expression.span().end_offset as usize);
        match expression {
            ast::Expr::Var(_) | ast::Expr::Const(_) => {}
            ast::Expr::List(node) => {
                node.items.iter().for_each(|item| self.expression(item));
                self.around(start, end);
            }
            ast::Expr::Tuple(node) => {
                node.items.iter().for_each(|item| self.expression(item));
                self.around(start, end);
            }
            ast::Expr::Map(node) => {
                node.keys.iter().chain(&node.values).for_each(|item| self.expression(item));
                self.around(start, end);
            }
            ast::Expr::BinOp(node) => {
                self.expression(&node.left);
                self.expression(&node.right);
                if matches!(node.op, ast::BinOpKind::Add | ast::BinOpKind::Mul) {
                    self.around(start, end);
                }
            }
            ast::Expr::Filter(node) => {
                self.optional(node.expr.as_ref());
                self.arguments(&node.args);
                // The span begins at the filter's name, and a filter may follow a filter.
                if !SCALAR_FILTERS.contains(&node.name) {
                    self.behind(end);
                }
            }
            ast::Expr::Slice(node) => {
                self.expression(&node.expr);
                for bound in [&node.start, &node.stop, &node.step] {
                    self.optional(bound.as_ref());
                }
                // A filter cannot stand between a slice and a postfix; what follows one is only a part anyway.
                let next = self.source.get(end..).and_then(|rest| rest.trim_ascii_start().bytes().next());
                if !matches!(next, Some(b'.' | b'[' | b'(')) {
                    self.behind(end);
                }
            }
            ast::Expr::Compare(node) => {
                self.expression(&node.expr);
                node.ops.iter().for_each(|operand| self.expression(&operand.expr));
            }
            ast::Expr::UnaryOp(node) => self.expression(&node.expr),
            ast::Expr::IfExpr(node) => {
                self.expression(&node.test_expr);
                self.expression(&node.true_expr);
                self.optional(node.false_expr.as_ref());
            }
            ast::Expr::Test(node) => {
                self.expression(&node.expr);
                self.arguments(&node.args);
            }
            ast::Expr::GetAttr(node) => self.expression(&node.expr),
            ast::Expr::GetItem(node) => {
                self.expression(&node.expr);
                self.expression(&node.subscript_expr);
            }
            ast::Expr::Call(node) => self.call(node),
        }
    }

    /// What a call returns is bounded without help: `range` is flat, `dict` and `namespace` measure it
    /// themselves, macros return text.
    fn call(&mut self, call: &ast::Call<'_>) {
        self.expression(&call.expr);
        self.arguments(&call.args);
    }

    fn arguments(&mut self, arguments: &[ast::CallArg<'_>]) {
        for argument in arguments {
            match argument {
                ast::CallArg::Pos(expression)
                | ast::CallArg::Kwarg(_, expression)
                | ast::CallArg::PosSplat(expression)
                | ast::CallArg::KwargSplat(expression) => self.expression(expression),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::template::{Part, environment, install};

    /// Renders with and without the measuring filter.
    fn both(source: &str) -> (Result<String, String>, Result<String, String>) {
        let context = minijinja::context! {
            a => 2, b => 3, s => "x<y", l => [3, 1, 2], n => [[1, 2], [3, 4]],
            m => minijinja::context! { k => "v", z => [1] }, people => [minijinja::context! { g => 1, n => "A" }],
        };
        let mut plain = environment();
        plain.add_template_owned("html", source.to_owned()).unwrap();
        let mut measured = environment();
        install(&mut measured, Part::Html, source).unwrap();
        let render = |environment: &minijinja::Environment<'_>| {
            environment.get_template("html").unwrap().render(&context).map_err(|error| error.kind().to_string())
        };
        (render(&plain), render(&measured))
    }

    #[test]
    fn measuring_changes_nothing_in_ordinary_templates() {
        let expressions = [
            "[a, b]",
            "[a, b][0]",
            "[a, b]|length",
            "-[a][0]",
            "[a, [b, s]]",
            "{'k': a}",
            "{'k': a}.k",
            "{s: [a]}[s][0]",
            "(a, b)",
            "(a, b)[1]",
            "(a,)",
            "a + b",
            "a + b * a",
            "(a + b) * a",
            "s * 2 + s",
            "'q' + s",
            "-a + b",
            "a ** 2 + b",
            "l|sort",
            "l|sort|reverse|first",
            "(l|sort)[0]",
            "l[1:]",
            "l[1:][0]",
            "l[::-1]|list",
            "l[:a]|join(',')",
            "s[1:]",
            "s[1:].x",
            "-l[1:][0]",
            "l + [a]",
            "[a] + l + n[0]",
            "n|map('join', '-')|list",
            "n|map(attribute=0)|list|join",
            "l|select('odd')|list",
            "l|batch(a, [b])|list",
            "l|zip(n)|list",
            "l|list is iterable",
            "a in [a, b]",
            "a in l|list",
            "[a] == [2]",
            "[a, b] < [a, 9]",
            "l|length + a",
            "a if [a] else b",
            "[a] if a > 1 else [b]",
            "not [a]",
            "[a] and l|sort or s",
            "m|items|list",
            "m|dictsort",
            "dict(x=a, y=[b])",
            "dict(m, x=[a]).x",
            "range(3)|list",
            "range(a)|map('string')|join",
            "m.z + [a]",
            "m['z'][0] + a",
            "people|groupby('g')|list",
            "people|map(attribute='n')|list",
            "missing|list",
            "missing[1:]",
            "[missing]",
            "missing|default([a])",
            "l|sort(reverse=true)",
            "l|sum",
            "s|split('<')",
            "s|list",
            "'%s-%s'|format(a, b)",
            "s ~ [a]",
            "[s]|safe",
            "[s, s]|join('<')|e",
            "l | sort | first",
            "[ a , b ] [ 0 ]",
            "l|sort is sequence",
            "l is in [l]",
            "a + b|string|int",
            "'a' 'b' + s",
            "l[a - 1 + 0]",
        ];
        let mut sources: Vec<String> = Vec::new();
        for expression in expressions {
            sources.push(format!("{{{{ {expression} }}}}"));
            sources.push(format!("{{{{{expression}}}}}"));
            sources.push(format!("{{% set x = {expression} %}}{{{{ x }}}}"));
            sources.push(format!("{{%- set ns = namespace(q=1) -%}} {{%- set ns.x = {expression} -%}} {{{{ ns.x }}}}"));
            sources.push(format!("{{% for i in {expression} %}}{{{{ i }}}},{{{{ loop.last }}}}{{% endfor %}}"));
            sources.push(format!("{{% if {expression} %}}t{{% else %}}f{{% endif %}}"));
            sources.push(format!("{{% with x = {expression}, y = a %}}{{{{ x }}}}{{% endwith %}}"));
            sources.push(format!(
                "{{% macro f(p, q={expression}) %}}{{{{ p }}}}{{{{ q }}}}{{% endmacro %}}{{{{ f({expression}) }}}}"
            ));
        }
        sources.extend(
            [
                "{% set x, y = a, b %}{{ x }}{{ y }}",
                "{% set x, y = (a, b) %}{{ x }}{{ y }}",
                "{% set x = a, (b), s %}{{ x }}",
                "{% set x = a, %}{{ x }}",
                "{% set x = a, [b], l|sort %}{{ x }}",
                "{% set x=a if b else[a]%}{{ x }}",
                "{% for p, q in n %}{{ p }}{{ q }}{% endfor %}{% for k, v in m|items %}{{ k }}{{ v }}{% endfor %}",
                "{% set ns = namespace(t=0, l=[]) %}{% for i in l %}{% set ns.t = ns.t + i %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.t }}{{ ns.l }}",
                "{% set c | split('b') %}abc{% endset %}{{ c }}{% filter replace('a', s) %}a{% endfilter %}",
                "{% filter split('b')|join('-') %}abc{% endfilter %}",
                "{% macro f(p) %}{{ p|sort }}{{ caller() }}{% endmacro %}{% call f(l + [a]) %}{{ [a] }}{% endcall %}",
                "{% for i in n recursive %}{% if i is iterable %}[{{ loop(i[:]) }}]{% else %}{{ i }}{% endif %}{% endfor %}",
                "{% for i in l if [i] == [a] %}{{ loop.cycle('x', 'y') }}{{ i }}{% endfor %}",
                "{% set x = namespace(v=l) %}{{ x.v }}{{ x }}",
                "{% autoescape false %}{{ [s] }}{% endautoescape %}",
                "{% do f([a]) if false else none %}",
            ]
            .map(str::to_owned),
        );
        for source in sources {
            if environment().add_template_owned("html", source.clone()).is_err() {
                continue;
            }
            let (plain, measured) = both(&source);
            assert_eq!(plain, measured, "{source}");
        }
    }

    #[test]
    fn a_namespace_cannot_hold_itself() {
        for source in [
            "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
            "{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns }}",
            "{% set ns = namespace() %}{% set o = ns %}{% set ns.a = o %}{{ ns == o }}",
            "{% set ns = namespace() %}{% set o = namespace(n=ns) %}{% set ns.a = o %}{{ ns }}",
            "{% macro f(n) %}{% set n.me = n %}{{ n ~ '' }}{% endmacro %}{{ f(namespace()) }}",
            "{% set ns = namespace() %}{% set l = [ns] %}{% set ns.a = l %}{{ l }}",
            "{% set ns = namespace() %}{% set ns.a = ns if 1 %}{{ ns }}",
            "{% set ns = namespace() %}{% set ns.a = {'k': [ns]}|items %}{{ ns|string }}",
        ] {
            let mut measured = environment();
            install(&mut measured, Part::Html, source).unwrap();
            assert!(measured.get_template("html").unwrap().render(()).is_err(), "{source}");
        }
    }
}
